//! [`Address`]: host and port of a broker, as `kafka.brokers` lists them.

use std::fmt;
use std::str::FromStr;

/// Where Kafka listens unless told otherwise.
const PORT: u16 = 9092;

/// A broker's host name or IP address, and its port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// A name, an IPv4 or an IPv6 address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl FromStr for Address {
    type Err = String;

    /// Reads `host`, `host:port`, `[::1]` and `[::1]:port`. A protocol before it, as Java's listeners have it, is
    /// refused, because it would be ignored.
    fn from_str(text: &str) -> Result<Self, String> {
        // Not before it is known that no password stands there.
        if let Some((_, host)) = text.rsplit_once('@') {
            return Err(format!("broker {host:?}: a user does not belong before it; expected host:port"));
        }
        let refuse = |why: &str| Err(format!("broker {text:?}: {why}; expected host:port"));
        if text.contains("://") {
            return refuse("a protocol does not belong here");
        }
        let (host, port) = if let Some(inner) = text.strip_prefix('[') {
            match inner.split_once(']') {
                Some((host, "")) => (host, None),
                Some((host, port)) => match port.strip_prefix(':') {
                    Some(port) => (host, Some(port)),
                    None => return refuse("unexpected text behind the bracket"),
                },
                None => return refuse("the bracket is not closed"),
            }
        } else {
            match text.rsplit_once(':') {
                Some((host, _)) if host.contains(':') => return refuse("an IPv6 address needs brackets"),
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            }
        };
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == '/' || c == ',') {
            return refuse("not a host name");
        }
        match port.map_or(Ok(PORT), str::parse) {
            Ok(port) if port > 0 => Ok(Address { host: host.to_string(), port }),
            _ => refuse("not a port"),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_printed() {
        for (text, host, port) in [
            ("localhost:19092", "localhost", 19092),
            ("broker.example", "broker.example", 9092),
            ("127.0.0.1:1", "127.0.0.1", 1),
            ("[::1]:9093", "::1", 9093),
            ("[fe80::1]", "fe80::1", 9092),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!((&address.host[..], address.port), (host, port));
            assert_eq!(address.to_string().parse::<Address>().unwrap(), address);
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_what_was_expected() {
        for text in
            ["", ":9092", "a:b", "a:0", "a:70000", "::1", "[::1", "[::1]x", "SSL://a:9", "a b:1", "a,b:1"]
        {
            let error = text.parse::<Address>().unwrap_err();
            assert!(error.contains("expected host:port"), "{error}");
        }
    }
    #[test]
    fn a_user_is_not_told() {
        for text in ["u:s3cret@h:9", "s3cret@h:9", "SSL://u:s3cret@h:9"] {
            let error = text.parse::<Address>().unwrap_err();
            assert!(error.starts_with("broker \"h:9\": a user does not belong before it"), "{error}");
        }
    }
}
