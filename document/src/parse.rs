//! From text to tree, with a bound on everything a hostile text could make large.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use serde_saphyr::granit_parser::{Event, Options, Parser, ScalarStyle, Span, Tag};

use crate::{Entry, Fault, Node, Value};

/// A pipeline or rules file is some kilobytes; this is for generated ones.
const TEXT_BYTES_MAX: usize = 4 << 20;
/// Deeper than any document that a person can read, shallow enough to walk recursively.
const DEPTH_MAX: usize = 64;
/// Scalars, lists and mappings, counting what aliases stand for each time.
const NODES_MAX: usize = 200_000;
/// Bytes of all scalars, counting what aliases stand for each time.
const SCALAR_BYTES_MAX: usize = 8 << 20;

/// Parses the bytes of a file: [`parse`] after a check that they are UTF-8.
///
/// # Errors
/// As [`parse`], or the place of the first byte that is not UTF-8.
pub fn parse_bytes(file: &str, bytes: &[u8]) -> Result<Node, Fault> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = String::from_utf8_lossy(&bytes[..error.valid_up_to()]).into_owned();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        fault(
            file,
            (bounded(line), bounded(column)),
            "the file is not UTF-8 text from here on",
        )
    })?;
    parse(file, text)
}

/// Parses one YAML document. `file` is for messages only. Never panics, whatever the text.
///
/// # Errors
/// The first place where the text is no YAML, or uses more of YAML than a document of ours needs: tags, merge keys,
/// keys that are no scalars, doubled keys, a second document, or more than the stated bounds.
pub fn parse(file: &str, text: &str) -> Result<Node, Fault> {
    if text.len() > TEXT_BYTES_MAX {
        let message = format!("the file has {} bytes; at most {TEXT_BYTES_MAX} are read", text.len());
        return Err(fault(file, (1, 1), message));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut options = Options::default();
    options.set_emit_comments(false);
    options.disallow_directives = true;
    options.flow_nesting_limit = DEPTH_MAX + 1;
    options.block_nesting_limit = DEPTH_MAX + 1;
    let mut builder = Builder {
        file,
        stack: Vec::new(),
        anchors: HashMap::new(),
        documents: 0,
        root: None,
        nodes: 0,
        scalar_bytes: 0,
    };
    for next in Parser::new_from_str_with_options(text, options) {
        let (event, span) = next.map_err(|error| {
            let mark = error.marker();
            let position = (bounded(mark.line()), bounded(mark.col() + 1));
            fault(file, position, format!("this is no YAML: {}", error.info()))
        })?;
        builder.event(event, position(&span))?;
    }
    Ok(builder.root.unwrap_or(Node {
        value: Value::Null,
        line: 1,
        column: 1,
    }))
}

fn bounded(number: usize) -> u32 {
    u32::try_from(number.max(1)).unwrap_or(u32::MAX)
}

fn position(span: &Span) -> (u32, u32) {
    (bounded(span.start.line()), bounded(span.start.col() + 1))
}

fn fault(file: &str, position: (u32, u32), message: impl Into<String>) -> Fault {
    Fault {
        file: file.to_owned(),
        line: position.0,
        column: position.1,
        path: String::new(),
        message: message.into(),
    }
    .bounded()
}

/// A list or mapping whose end has not been seen.
struct Open {
    node: Node,
    anchor: usize,
    /// The key whose value comes next, when this is a mapping.
    key: Option<(String, u32, u32)>,
    keys: HashSet<String>,
}

struct Builder<'a> {
    file: &'a str,
    stack: Vec<Open>,
    /// What each finished anchor stands for, with its nodes and scalar bytes.
    anchors: HashMap<usize, (Node, usize, usize)>,
    documents: usize,
    root: Option<Node>,
    nodes: usize,
    scalar_bytes: usize,
}

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, at: (u32, u32)) -> Result<(), Fault> {
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(fault(
                        self.file,
                        at,
                        "a second document begins here; put it into a file of its own",
                    ));
                }
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(tag.as_ref(), at)?;
                self.scalar(&text, style, anchor, at)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.refuse_tag(tag.as_ref(), at)?;
                self.open(Value::List(Vec::new()), anchor, at)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.refuse_tag(tag.as_ref(), at)?;
                self.open(Value::Map(Vec::new()), anchor, at)
            }
            Event::SequenceEnd | Event::MappingEnd => match self.stack.pop() {
                Some(open) => self.finished(open.node, open.anchor),
                None => Ok(()),
            },
            Event::Alias(anchor) => self.alias(anchor, at),
            Event::UnresolvedAlias(name) => Err(fault(
                self.file,
                at,
                format!("the alias `*{name}` stands for nothing above it"),
            )),
            _ => Ok(()),
        }
    }

    fn refuse_tag(&self, tag: Option<&Cow<'_, Tag>>, at: (u32, u32)) -> Result<(), Fault> {
        match tag {
            Some(_) => Err(fault(
                self.file,
                at,
                "tags such as `!!str` are not read; put a text into quotes instead",
            )),
            None => Ok(()),
        }
    }

    /// Counts before anything is kept, so that an alias bomb ends before it has grown.
    fn count(&mut self, nodes: usize, scalar_bytes: usize, at: (u32, u32)) -> Result<(), Fault> {
        self.nodes = self.nodes.saturating_add(nodes);
        self.scalar_bytes = self.scalar_bytes.saturating_add(scalar_bytes);
        if self.nodes > NODES_MAX {
            let message = format!("the document has more than {NODES_MAX} values, counting what aliases stand for");
            return Err(fault(self.file, at, message));
        }
        if self.scalar_bytes > SCALAR_BYTES_MAX {
            let message = format!("the texts have more than {SCALAR_BYTES_MAX} bytes, counting what aliases stand for");
            return Err(fault(self.file, at, message));
        }
        Ok(())
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, anchor: usize, at: (u32, u32)) -> Result<(), Fault> {
        self.count(1, text.len(), at)?;
        if let Some(open) = self.stack.last_mut()
            && matches!(open.node.value, Value::Map(_))
            && open.key.is_none()
        {
            if anchor != 0 {
                return Err(fault(self.file, at, "a key can't have an anchor"));
            }
            if text == "<<" && style == ScalarStyle::Plain {
                return Err(fault(
                    self.file,
                    at,
                    "merge keys (`<<`) are not read; write the keys out",
                ));
            }
            if !open.keys.insert(text.to_owned()) {
                return Err(fault(
                    self.file,
                    at,
                    format!("the key `{text}` is already there in this mapping"),
                ));
            }
            open.key = Some((text.to_owned(), at.0, at.1));
            return Ok(());
        }
        let value = match style {
            ScalarStyle::Plain => Value::of_plain(text),
            _ => Value::Text(text.to_owned()),
        };
        let node = Node {
            value,
            line: at.0,
            column: at.1,
        };
        self.finished(node, anchor)
    }

    fn open(&mut self, value: Value, anchor: usize, at: (u32, u32)) -> Result<(), Fault> {
        self.count(1, 0, at)?;
        if self.stack.len() >= DEPTH_MAX {
            let message = format!("lists and mappings are nested more than {DEPTH_MAX} deep here");
            return Err(fault(self.file, at, message));
        }
        self.refuse_complex_key(at)?;
        self.stack.push(Open {
            node: Node {
                value,
                line: at.0,
                column: at.1,
            },
            anchor,
            key: None,
            keys: HashSet::new(),
        });
        Ok(())
    }

    fn refuse_complex_key(&self, at: (u32, u32)) -> Result<(), Fault> {
        match self.stack.last() {
            Some(open) if open.key.is_none() && matches!(open.node.value, Value::Map(_)) => Err(fault(
                self.file,
                at,
                "a key has to be text; this one is a list, a mapping or an alias",
            )),
            _ => Ok(()),
        }
    }

    fn alias(&mut self, anchor: usize, at: (u32, u32)) -> Result<(), Fault> {
        self.refuse_complex_key(at)?;
        let Some((node, nodes, scalar_bytes)) = self.anchors.get(&anchor) else {
            return Err(fault(
                self.file,
                at,
                "the alias stands for something that contains itself",
            ));
        };
        let (node, nodes, scalar_bytes) = (node.clone(), *nodes, *scalar_bytes);
        if self.stack.len() + depth(&node) > DEPTH_MAX {
            let message = format!("with this alias, lists and mappings are nested more than {DEPTH_MAX} deep");
            return Err(fault(self.file, at, message));
        }
        self.count(nodes, scalar_bytes, at)?;
        self.finished(node, 0)
    }

    /// Puts a complete value where it belongs.
    fn finished(&mut self, node: Node, anchor: usize) -> Result<(), Fault> {
        if anchor != 0 {
            let (nodes, scalar_bytes) = weight(&node);
            // An anchor keeps a copy: it counts as if it were in the document twice.
            self.count(nodes, scalar_bytes, node.position())?;
            self.anchors.insert(anchor, (node.clone(), nodes, scalar_bytes));
        }
        match self.stack.last_mut() {
            None => self.root = Some(node),
            Some(open) => match (&mut open.node.value, open.key.take()) {
                (Value::Map(entries), Some((key, line, column))) => entries.push(Entry {
                    key,
                    line,
                    column,
                    node,
                }),
                (Value::List(nodes), _) => nodes.push(node),
                // A value without a key can't come: `open` and `alias` refuse it and `scalar` makes it the key.
                _ => {}
            },
        }
        Ok(())
    }
}

/// How many levels of lists and mappings a value has.
fn depth(node: &Node) -> usize {
    match &node.value {
        Value::List(nodes) => 1 + nodes.iter().map(depth).max().unwrap_or_default(),
        Value::Map(entries) => 1 + entries.iter().map(|entry| depth(&entry.node)).max().unwrap_or_default(),
        _ => 0,
    }
}

/// How many nodes a value has and how many bytes its scalars and keys.
fn weight(node: &Node) -> (usize, usize) {
    let add = |(nodes, bytes): (usize, usize), (more_nodes, more_bytes): (usize, usize)| {
        (nodes + more_nodes, bytes + more_bytes)
    };
    match &node.value {
        Value::Null | Value::Bool(_) => (1, 0),
        Value::Number(text) | Value::Text(text) => (1, text.len()),
        Value::List(nodes) => nodes.iter().map(weight).fold((1, 0), add),
        Value::Map(entries) => {
            let entry = |entry: &Entry| add(weight(&entry.node), (1, entry.key.len()));
            entries.iter().map(entry).fold((1, 0), add)
        }
    }
}
