//! How a record carries its schema's id.

/// Where the schema id goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Framing {
    /// Confluent's wire format: a zero, the id as four bytes big-endian, then the Avro.
    Prefix,
    /// A header of this name with the id in decimal digits; the value is plain Avro.
    Header(String),
}

/// What becomes a record's value and, with [`Framing::Header`], its header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub value: Vec<u8>,
    pub header: Option<(String, Vec<u8>)>,
}

impl Framing {
    pub(crate) fn frame(&self, schema_id: u32, avro: &[u8]) -> Frame {
        match self {
            Self::Prefix => {
                let mut value = Vec::with_capacity(5 + avro.len());
                value.push(0);
                value.extend_from_slice(&schema_id.to_be_bytes());
                value.extend_from_slice(avro);
                Frame { value, header: None }
            }
            Self::Header(name) => Frame {
                value: avro.to_vec(),
                header: Some((name.clone(), schema_id.to_string().into_bytes())),
            },
        }
    }

    /// A frame from which no schema id can be read.
    pub(crate) fn broken_frame(&self, avro: &[u8]) -> Frame {
        match self {
            Self::Prefix => Frame {
                value: vec![0, 0, 0],
                header: None,
            },
            Self::Header(name) => Frame {
                value: avro.to_vec(),
                header: Some((name.clone(), vec![0, 0, 7])),
            },
        }
    }
}
