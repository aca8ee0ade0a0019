//! Who is who: `osd.3`, `mon.0`, `client.17`.

use core::fmt;
use core::str::FromStr;

/// What kind of entity a messenger speaks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum EntityKind {
    /// Monitor.
    Mon = 1,
    /// Metadata server.
    Mds = 2,
    /// Object storage daemon.
    Osd = 4,
    /// Client.
    Client = 8,
    /// Manager.
    Mgr = 16,
}

impl EntityKind {
    const ALL: [EntityKind; 5] =
        [EntityKind::Mon, EntityKind::Mds, EntityKind::Osd, EntityKind::Client, EntityKind::Mgr];

    /// The number that stands for it on the wire.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The kind that `code` stands for on the wire.
    pub fn from_code(code: u8) -> Option<EntityKind> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// Lower-case name.
    pub const fn as_str(self) -> &'static str {
        match self {
            EntityKind::Mon => "mon",
            EntityKind::Mds => "mds",
            EntityKind::Osd => "osd",
            EntityKind::Client => "client",
            EntityKind::Mgr => "mgr",
        }
    }
}

impl fmt::Display for EntityKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is no entity name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no entity name; expected KIND.NUMBER with KIND one of mon, mds, osd, client, mgr")]
pub struct ParseNameError {
    text: String,
}

impl FromStr for EntityKind {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, ParseNameError> {
        let found = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        found.ok_or_else(|| ParseNameError { text: text.to_owned() })
    }
}

/// The name of an entity, such as `osd.3`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntityName {
    /// What it is.
    pub kind: EntityKind,
    /// Which one.
    pub id: u64,
}

impl EntityName {
    /// `mon.ID`.
    pub const fn mon(id: u64) -> Self {
        EntityName { kind: EntityKind::Mon, id }
    }

    /// `mds.ID`.
    pub const fn mds(id: u64) -> Self {
        EntityName { kind: EntityKind::Mds, id }
    }

    /// `osd.ID`.
    pub const fn osd(id: u64) -> Self {
        EntityName { kind: EntityKind::Osd, id }
    }

    /// `client.ID`.
    pub const fn client(id: u64) -> Self {
        EntityName { kind: EntityKind::Client, id }
    }

    /// `mgr.ID`.
    pub const fn mgr(id: u64) -> Self {
        EntityName { kind: EntityKind::Mgr, id }
    }
}

impl fmt::Display for EntityName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.kind, self.id)
    }
}

impl fmt::Debug for EntityName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for EntityName {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, ParseNameError> {
        let error = || ParseNameError { text: text.to_owned() };
        let (kind, id) = text.split_once('.').ok_or_else(error)?;
        Ok(EntityName { kind: kind.parse().map_err(|_| error())?, id: id.parse().map_err(|_| error())? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_as_they_are_written() {
        for name in [
            EntityName::osd(3),
            EntityName::mon(0),
            EntityName::client(u64::MAX),
            EntityName::mds(1),
            EntityName::mgr(9),
        ] {
            assert_eq!(name.to_string().parse::<EntityName>().unwrap(), name);
            assert_eq!(EntityKind::from_code(name.kind.code()), Some(name.kind));
        }
    }

    #[test]
    fn other_text_is_refused_with_the_text_in_the_error() {
        for text in ["osd", "osd.", "osd.-1", "OSD.1", ".1", "osd.1.2", ""] {
            let error = text.parse::<EntityName>().unwrap_err();
            assert!(error.to_string().contains(text));
        }
    }
}
