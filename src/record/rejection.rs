//! Why a record is not stored: [`Rejection`], of a kind from a closed list ([`RejectKind`]).

/// Why a record is not stored but becomes a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Which kind of fault, from a closed list.
    pub kind: RejectKind,
    /// What is wrong, for people.
    pub message: String,
    /// How many bytes the record has, where only its beginning was kept.
    pub length: Option<u64>,
    /// Where in the value, as an RFC 6901 pointer, if known.
    pub pointer: Option<String>,
}

impl Rejection {
    /// A rejection of this kind, with a message for people.
    pub fn new(kind: RejectKind, message: impl Into<String>) -> Self {
        Rejection { kind, message: message.into(), length: None, pointer: None }
    }
}

/// The closed list of reasons why a record is rejected.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RejectKind {
    /// Not one JSON value by RFC 8259.
    InvalidJson,
    /// Not UTF-8.
    InvalidUtf8,
    /// Longer than `max_record_bytes`.
    TooLarge,
    /// The input ended inside the record.
    Incomplete,
    /// A transform rejected it.
    Transform,
    /// What a transform made of it is not valid, or too large.
    Output,
    /// It does not match the schema.
    Schema,
}

impl RejectKind {
    /// Every kind, in order.
    pub const ALL: [RejectKind; 7] = [
        RejectKind::InvalidJson,
        RejectKind::InvalidUtf8,
        RejectKind::TooLarge,
        RejectKind::Incomplete,
        RejectKind::Transform,
        RejectKind::Output,
        RejectKind::Schema,
    ];

    /// The name that dead letters and metrics carry.
    pub fn name(self) -> &'static str {
        match self {
            RejectKind::InvalidJson => "invalid_json",
            RejectKind::InvalidUtf8 => "invalid_utf8",
            RejectKind::TooLarge => "too_large",
            RejectKind::Incomplete => "incomplete",
            RejectKind::Transform => "transform",
            RejectKind::Output => "output",
            RejectKind::Schema => "schema",
        }
    }
}
