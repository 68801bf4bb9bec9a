//! HTTP/1.1: heads, and how long the body behind one is (RFC 9112, section 6.3). Anything ambiguous is refused: a proxy
//! that reads a length otherwise than its target would strike the wrong bytes.

use super::framed::{AnswerHead, Asked, Framing, RequestHead};
use super::message::{Body, Broken, Chunked, Extent, HEAD_BYTES_MAX};
use super::strike::Answer;
use httparse::{Header, Status};

const HEADERS_MAX: usize = 256;

pub(super) struct Http;

impl Framing for Http {
    fn request(bytes: &[u8]) -> Result<Option<RequestHead>, Broken> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        let Some(head) = complete(request.parse(bytes), bytes, "request")? else {
            return Ok(None);
        };
        let method = request.method.unwrap_or_default();
        if method == "CONNECT" {
            return unframed("CONNECT was asked for: after it there are no requests; use Wire::Bytes");
        }
        let body = match length(request.headers)? {
            Length::Known(body) => body,
            Length::None => Body::Length(0),
            Length::Unknown => return unframed("a request's Transfer-Encoding does not end with chunked"),
        };
        Ok(Some(RequestHead {
            bytes: head,
            extent: Extent::new(head, body),
            asked: Asked::Http { head: method == "HEAD" },
        }))
    }

    fn answer(bytes: &[u8], asked: Option<Asked>) -> Result<Option<AnswerHead>, Broken> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut answer = httparse::Response::new(&mut headers);
        let Some(head) = complete(answer.parse(bytes), bytes, "answer")? else {
            return Ok(None);
        };
        let status = answer.code.unwrap_or_default();
        if status == 101 {
            return unframed("the target switches to another protocol: use Wire::Bytes");
        }
        let interim = (100..200).contains(&status);
        let no_body = interim || matches!(status, 204 | 304) || matches!(asked, Some(Asked::Http { head: true }));
        let body = if no_body {
            Body::Length(0)
        } else {
            match length(answer.headers)? {
                Length::Known(body) => body,
                Length::None | Length::Unknown => Body::UntilEnd,
            }
        };
        Ok(Some(AnswerHead {
            extent: Extent::new(head, body),
            interim,
        }))
    }
}

/// The bytes of an answer; without its body if HEAD asked for it.
pub(super) fn written(answer: &Answer, asked: Asked) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {} \r\n", answer.status);
    for (name, value) in &answer.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str(&format!("Content-Length: {}\r\n\r\n", answer.body.len()));
    if asked != (Asked::Http { head: true }) {
        text.push_str(&answer.body);
    }
    text.into_bytes()
}

fn unframed<T>(what: &str) -> Result<T, Broken> {
    Err(Broken::Unframed(what.to_owned()))
}

/// The head's length once all of it is there.
fn complete(parsed: httparse::Result<usize>, bytes: &[u8], what: &str) -> Result<Option<usize>, Broken> {
    match parsed {
        Ok(Status::Complete(length)) => Ok(Some(length)),
        Ok(Status::Partial) if bytes.len() <= HEAD_BYTES_MAX => Ok(None),
        Ok(Status::Partial) => unframed(&format!(
            "the head of an HTTP {what} has more than {HEAD_BYTES_MAX} bytes"
        )),
        Err(error) => unframed(&format!("this is no head of an HTTP/1.1 {what}: {error}")),
    }
}

enum Length {
    Known(Body),
    /// No header says one.
    None,
    /// An encoding that ends with the connection.
    Unknown,
}

fn length(headers: &[Header<'_>]) -> Result<Length, Broken> {
    let values = |name: &'static str| {
        headers
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
            .map(|header| String::from_utf8_lossy(header.value))
    };
    let lengths: Vec<_> = values("content-length").collect();
    let encodings: Vec<_> = values("transfer-encoding").collect();
    match (&lengths[..], encodings.join(",")) {
        ([], encoding) if encodings.is_empty() || encoding.is_empty() => Ok(Length::None),
        ([], encoding) => {
            let last = encoding.rsplit(',').next().unwrap_or_default().trim();
            Ok(if last.eq_ignore_ascii_case("chunked") {
                Length::Known(Body::Chunked(Chunked::Size))
            } else {
                Length::Unknown
            })
        }
        ([length], encoding) if encoding.is_empty() => {
            let digits = length.trim();
            // `parse` alone would take a sign.
            match digits.parse() {
                Ok(bytes) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Ok(Length::Known(Body::Length(bytes))),
                _ => unframed(&format!("Content-Length {digits:?} is no number")),
            }
        }
        _ => unframed("a head gives its body's length twice (Content-Length, Transfer-Encoding)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request_length(head: &str) -> Result<usize, Broken> {
        let request = Http::request(head.as_bytes())?.unwrap();
        assert_eq!(request.bytes, head.len());
        Ok(request.bytes)
    }

    #[test]
    fn a_head_whose_bodys_length_is_ambiguous_is_refused() {
        for headers in [
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: 99999999999999999999999\r\n",
            "Transfer-Encoding: chunked, gzip\r\n",
        ] {
            let head = format!("POST / HTTP/1.1\r\n{headers}\r\n");
            assert!(matches!(request_length(&head), Err(Broken::Unframed(_))), "{headers}");
        }
        request_length("POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\n").unwrap();
        request_length("POST / HTTP/1.1\r\nTRANSFER-ENCODING: gzip, Chunked\r\n\r\n").unwrap();
    }

    #[test]
    fn what_ends_the_framing_is_refused() {
        assert!(request_length("CONNECT a:1 HTTP/1.1\r\n\r\n").is_err());
        assert!(request_length("PRI * HTTP/2.0\r\n\r\n").is_err());
        assert!(Http::answer(b"HTTP/1.1 101 x\r\n\r\n", None).is_err());
    }

    #[test]
    fn an_answer_without_a_body_has_none_whatever_its_headers_say() {
        for (status, head) in [(100, false), (204, false), (304, false), (200, true)] {
            let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: 5\r\n\r\n");
            let read = Http::answer(answer.as_bytes(), Some(Asked::Http { head }))
                .unwrap()
                .unwrap();
            assert_eq!(read.interim, status == 100);
            assert_eq!(
                format!("{:?}", read.extent),
                format!("{:?}", Extent::new(answer.len(), Body::Length(0)))
            );
        }
    }
}
