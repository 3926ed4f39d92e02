//! A field of a JSON value, named by an RFC 6901 pointer: what keys of outgoing records are made of. The value is
//! walked without being built; only keys and strings with escapes are copied.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::error::{Error, Result};

/// An RFC 6901 pointer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer(Vec<String>);

impl Pointer {
    /// A pointer from its text: empty for the whole value, else `/` before each step.
    ///
    /// # Errors
    /// [`Error::Usage`] if it is none.
    pub fn new(text: &str) -> Result<Pointer> {
        let Some(steps) = text.strip_prefix('/') else {
            return match text {
                "" => Ok(Pointer(Vec::new())),
                _ => Err(Error::Usage(format!(
                    "{text:?} is no JSON pointer: it begins with a slash, like \"/{text}\""
                ))),
            };
        };
        let unescape = |step: &str| {
            let plain = step.replace("~1", "").replace("~0", "");
            if plain.contains('~') {
                return Err(Error::Usage(format!("{text:?} is no JSON pointer: ~ stands only in ~0 and ~1")));
            }
            Ok(step.replace("~1", "/").replace("~0", "~"))
        };
        steps.split('/').map(unescape).collect::<Result<_>>().map(Pointer)
    }

    /// Its steps, unescaped.
    #[cfg(feature = "http")]
    pub(crate) fn steps(&self) -> &[String] {
        &self.0
    }

    /// What stands there in `json`, one valid value, as raw JSON text. Of equal keys the last counts.
    pub(crate) fn find<'j>(&self, json: &'j str) -> Option<&'j str> {
        let mut from = serde_json::Deserializer::from_str(json);
        Find(&self.0).deserialize(&mut from).ok()?
    }

    /// What stands there in `json`, as bytes: strings without their quotes, everything else as it is written;
    /// `None` where nothing or `null` stands.
    pub(crate) fn bytes<'j>(&self, json: &'j str) -> Option<Cow<'j, [u8]>> {
        match self.find(json)? {
            "null" => None,
            found if !found.starts_with('"') => Some(Cow::Borrowed(found.as_bytes())),
            found if !found.contains('\\') => Some(Cow::Borrowed(&found.as_bytes()[1..found.len() - 1])),
            // A lone surrogate is no text: then the key is what was written.
            found => match serde_json::from_str::<String>(found) {
                Ok(text) => Some(Cow::Owned(text.into_bytes())),
                Err(_) => Some(Cow::Borrowed(found.as_bytes())),
            },
        }
    }
}

/// Finds the value behind these steps.
struct Find<'p>(&'p [String]);

impl<'de> DeserializeSeed<'de> for Find<'_> {
    type Value = Option<&'de str>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> std::result::Result<Self::Value, D::Error> {
        match self.0 {
            [] => serde::Deserialize::deserialize(from).map(|value: &RawValue| Some(value.get())),
            _ => from.deserialize_any(self),
        }
    }
}

/// Values that have no steps below them.
macro_rules! nothing {
    ($($name:ident: $kind:ty),*) => {
        $(fn $name<E>(self, _: $kind) -> std::result::Result<Self::Value, E> {
            Ok(None)
        })*
    };
}

impl<'de> Visitor<'de> for Find<'_> {
    type Value = Option<&'de str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    nothing!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

    fn visit_unit<E>(self) -> std::result::Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
        let Some((step, rest)) = self.0.split_first() else { return Ok(None) };
        let mut found = None;
        while let Some(Same(same)) = map.next_key_seed(Is(step))? {
            if same {
                found = map.next_value_seed(Find(rest))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<Self::Value, A::Error> {
        let Some((step, rest)) = self.0.split_first() else { return Ok(None) };
        let plain = step == "0" || !step.starts_with(['0', '+']);
        let index: usize = step.parse().ok().filter(|_| plain).unwrap_or(usize::MAX);
        let mut found = None;
        for at in 0usize.. {
            let more = match at == index {
                true => list.next_element_seed(Find(rest))?.map(|value| found = value),
                false => list.next_element::<IgnoredAny>()?.map(|_| ()),
            };
            if more.is_none() {
                break;
            }
        }
        Ok(found)
    }
}

/// Compares a key without keeping it.
struct Is<'p>(&'p str);

struct Same(bool);

impl<'de> DeserializeSeed<'de> for Is<'_> {
    type Value = Same;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> std::result::Result<Same, D::Error> {
        // As bytes: half of a surrogate pair is no text, but may stand in a key beside the one that is looked for.
        from.deserialize_bytes(self)
    }
}

impl Visitor<'_> for Is<'_> {
    type Value = Same;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> std::result::Result<Same, E> {
        Ok(Same(key == self.0))
    }

    fn visit_bytes<E>(self, key: &[u8]) -> std::result::Result<Same, E> {
        Ok(Same(key == self.0.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(pointer: &str, json: &str, found: Option<&str>) {
        assert_eq!(Pointer::new(pointer).unwrap().find(json), found);
    }

    #[track_caller]
    fn bytes(json: &str, found: Option<&str>) {
        let pointer = Pointer::new("/k").unwrap();
        assert_eq!(pointer.bytes(json).as_deref(), found.map(str::as_bytes));
    }

    #[test]
    fn values_are_found_as_they_stand() {
        check("", " {\"a\":1} ", Some("{\"a\":1}"));
        check("/a", "{\"b\":{\"a\":2},\"a\": [1, 2]}", Some("[1, 2]"));
        check("/a/1/x", "{\"a\":[0,{\"x\":1.50}]}", Some("1.50"));
        check("/a~1b/~0", "{\"a/b\":{\"~\":true}}", Some("true"));
        check("/", "{\"\":3}", Some("3"));
        check("/ü", "{\"\\u00fc\":3}", Some("3"));
        check("/a", "{\"a\":1,\"a\":2}", Some("2"));
        check("/a", "{\"\\ud800\":1,\"a\":2,\"\\udc00x\":{}}", Some("2"));
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        for json in ["{}", "[]", "1", "\"a\"", "null", "true", "1e999", "{\"b\":{\"a\":1}}", "-7", "1.5"] {
            check("/a", json, None);
        }
        for step in ["2", "01", "-1", "+0", "a", "", "99999999999999999999999"] {
            check(&format!("/{step}"), "[1,2]", None);
        }
        check("/0", "[5]", Some("5"));
    }

    #[test]
    fn keys_are_the_text_of_strings_and_else_what_is_written() {
        bytes(r#"{"k":"ab"}"#, Some("ab"));
        bytes(r#"{"k":"a\"\u00fc"}"#, Some("a\"ü"));
        bytes(r#"{"k":"\ud800"}"#, Some(r#""\ud800""#));
        bytes(r#"{"k":1.0}"#, Some("1.0"));
        bytes(r#"{"k":{"a": 1}}"#, Some(r#"{"a": 1}"#));
        bytes(r#"{"k":""}"#, Some(""));
        bytes(r#"{"k":null}"#, None);
        bytes(r#"{"other":1}"#, None);
    }

    #[test]
    fn what_is_no_pointer_is_refused() {
        for (text, says) in [("id", "like \"/id\""), ("/a~b", "only in ~0"), ("/~2", "only in ~0")] {
            assert!(Pointer::new(text).unwrap_err().to_string().contains(says));
        }
    }

    #[test]
    fn depth_is_no_matter_beside_the_way() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        check("/k", &format!("{{\"x\":{deep},\"k\":1}}"), Some("1"));
        check("/k", &format!("{{\"k\":{deep}}}"), Some(&deep));
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            "[a~/\"]{0,2}".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                proptest::collection::hash_map("[a~/01\"]{0,2}", inner, 0..4)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// The same as serde_json finds in a whole value.
        #[test]
        fn it_finds_what_serde_json_finds(value in json(), steps in proptest::collection::vec("[a~/01\"]{0,2}", 0..4)) {
            let text: String =
                steps.iter().map(|step| format!("/{}", step.replace('~', "~0").replace('/', "~1"))).collect();
            let found = Pointer::new(&text).unwrap().find(&value.to_string()).map(str::to_owned);
            prop_assert_eq!(found, value.pointer(&text).map(ToString::to_string));
        }
    }
}
