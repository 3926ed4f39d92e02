//! `[http]`: which endpoints are read, how they are asked, and how one page leads to the next. Plain data, there
//! without the feature `http` too.
//!
//! Nothing here is ever printed with a query string or a user in a URL: both may hold a token.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use super::secret::Secret;

/// Headers that say how a message is framed, or how an answer may come: who sets them himself breaks the connection, or
/// makes the client wait for ever.
const OURS: [&str; 9] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "accept-encoding",
    "expect",
    "te",
    "trailer",
    "upgrade",
];

/// Whether a header of this name, in any case, is set by the client alone.
pub fn is_ours(header: &str) -> bool {
    OURS.iter().any(|ours| header.eq_ignore_ascii_case(ours))
}

/// Everything about HTTP endpoints.
#[derive(Clone, Debug, PartialEq)]
pub struct Http {
    /// The endpoints. Each is a partition.
    pub urls: Vec<String>,
    /// How they are asked.
    pub method: Method,
    /// Headers of every request.
    pub headers: Vec<(String, String)>,
    /// Parameters of every request.
    pub query: Vec<(String, String)>,
    /// What is sent with a POST.
    pub body: Option<String>,
    /// Where the array of records stands in a page, as a JSON pointer; `None`: the page is the records.
    pub records: Option<String>,
    /// Where a record's own identity stands in it, as a JSON pointer.
    pub id: Option<String>,
    /// What grows from change to change of a record, as a JSON pointer.
    pub since: Option<String>,
    /// The parameter that carries its highest value; `None`: named after the pointer's last step.
    pub since_param: Option<String>,
    /// Hosts besides an endpoint's own that it may lead to: `host` or `host:port`.
    pub allow_hosts: Vec<String>,
    /// Requests a second, of all endpoints together.
    pub rate_limit: Option<f64>,
    /// How long after the beginning of a pass the next one begins; `None`: there is one pass.
    pub poll: Option<Duration>,
    /// The longest page, unpacked.
    pub max_body_bytes: u64,
    /// `[http.tls]`: certificates.
    pub tls: Tls,
    /// `[http.auth]`: who asks.
    pub auth: Auth,
    /// `[http.pagination]`: what leads from page to page.
    pub pagination: Pagination,
}

/// How an endpoint is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// GET.
    #[default]
    Get,
    /// POST, with a body.
    Post,
}

/// Certificates, for URLs that begin with `https`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// PEM file of the authorities that servers are verified against; the system's if `None`.
    pub ca: Option<PathBuf>,
    /// PEM file of the client's certificate.
    pub cert: Option<PathBuf>,
    /// PEM file of the client's key; it stands in the file of the certificate if `None`.
    pub key: Option<PathBuf>,
    /// Whether servers must prove who they are.
    pub verify: bool,
}

/// Who asks. One way at most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Auth {
    /// A token: `Authorization: Bearer …`.
    pub bearer: Option<Secret>,
    /// Basic: who.
    pub username: Option<String>,
    /// Basic: the password.
    pub password: Option<Secret>,
    /// API key: the header that carries it.
    pub header: Option<String>,
    /// API key: the key.
    pub value: Option<Secret>,
    /// OAuth 2 client credentials (RFC 6749, section 4.4): where tokens are.
    pub token_url: Option<String>,
    /// Who asks for tokens.
    pub client_id: Option<String>,
    /// The secret of who asks for tokens.
    pub client_secret: Option<Secret>,
    /// What the tokens are for.
    pub scope: Option<String>,
}

/// What leads from page to page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pagination {
    /// How.
    pub style: Style,
    /// Style `page`: the parameter with the page's number.
    pub page_param: String,
    /// Style `page`: the first page's number.
    pub first_page: u64,
    /// Styles `page`, `cursor`: the parameter with `page_size`.
    pub size_param: String,
    /// How many records a page is to have; `None`: as many as the server likes.
    pub page_size: Option<u64>,
    /// Style `offset`: the parameter with the number of records before the page.
    pub offset_param: String,
    /// Style `offset`: the parameter with `page_size`.
    pub limit_param: String,
    /// Style `cursor`: the parameter with the cursor.
    pub cursor_param: String,
    /// Style `cursor`: where the next cursor stands in a page, as a JSON pointer.
    pub cursor: String,
    /// Style `next-url`: where the next URL stands in a page, as a JSON pointer.
    pub next: String,
    /// No more pages in a pass than this.
    pub max_pages: Option<u64>,
}

/// How one page leads to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// There is one page.
    #[default]
    None,
    /// By numbers of pages.
    Page,
    /// By numbers of records.
    Offset,
    /// By a cursor in the page.
    Cursor,
    /// By the header `Link` with `rel="next"` (RFC 8288).
    Link,
    /// By a URL in the page.
    NextUrl,
}

impl Style {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Style::None => "none",
            Style::Page => "page",
            Style::Offset => "offset",
            Style::Cursor => "cursor",
            Style::Link => "link",
            Style::NextUrl => "next-url",
        }
    }
}

impl Default for Http {
    fn default() -> Self {
        Http {
            urls: Vec::new(),
            method: Method::default(),
            headers: Vec::new(),
            query: Vec::new(),
            body: None,
            records: None,
            id: None,
            since: None,
            since_param: None,
            allow_hosts: Vec::new(),
            rate_limit: None,
            poll: None,
            max_body_bytes: 8 << 30,
            tls: Tls::default(),
            auth: Auth::default(),
            pagination: Pagination::default(),
        }
    }
}

impl Default for Tls {
    fn default() -> Self {
        Tls { ca: None, cert: None, key: None, verify: true }
    }
}

impl Default for Pagination {
    fn default() -> Self {
        Pagination {
            style: Style::default(),
            page_param: "page".into(),
            first_page: 1,
            size_param: "per_page".into(),
            page_size: None,
            offset_param: "offset".into(),
            limit_param: "limit".into(),
            cursor_param: "cursor".into(),
            cursor: "/next_cursor".into(),
            next: "/next".into(),
            max_pages: None,
        }
    }
}

/// What a URL is called, and what its batches are named after: host, port where one is given, and path. Never a
/// user, a query or a fragment.
///
/// # Errors
/// One sentence on what was expected; it holds nothing of the URL but its beginning up to the path.
pub fn name(url: &str) -> Result<String, String> {
    const EXPECTED: &str = "expected http://HOST[:PORT]/PATH or https://…";
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(format!("a URL has no scheme; {EXPECTED}"));
    };
    if !matches!(scheme.to_ascii_lowercase().as_str(), "http" | "https") {
        return Err(format!("a URL begins with {scheme:?}; {EXPECTED}"));
    }
    let end = rest.find(['?', '#']).unwrap_or(rest.len());
    let (host, path) = rest[..end].split_once('/').unwrap_or((&rest[..end], ""));
    if host.contains('@') {
        return Err("a URL holds a user; expected none there, and http.auth.username and password".into());
    }
    let odd = |c: char| c.is_whitespace() || c.is_control() || c == '\\';
    if host.is_empty() || host.contains(odd) || path.contains(odd) {
        return Err(format!("a URL has no host, or characters that no URL has; {EXPECTED}"));
    }
    let default = if scheme.eq_ignore_ascii_case("https") { ":443" } else { ":80" };
    let host = host.to_ascii_lowercase();
    let host = host.strip_suffix(default).unwrap_or(&host);
    let path = path.trim_end_matches('/');
    Ok(if path.is_empty() { host.to_owned() } else { format!("{host}/{path}") })
}

impl Http {
    /// What several of these settings may be together, a line for each problem.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut when = |wrong: bool, line: &str| {
            if wrong {
                problems.push(line.to_owned());
            }
        };
        when(!cfg!(feature = "http"), "this build has no HTTP client; expected one with the feature http");
        when(self.urls.is_empty(), "no endpoints: expected --url URL (http.urls)");
        let style = self.pagination.style;
        when(
            matches!(style, Style::Cursor | Style::NextUrl)
                && self.records.as_deref().unwrap_or("").is_empty(),
            "http.pagination.style cursor and next-url need http.records: what leads on stands beside the records",
        );
        when(
            self.body.is_some() && self.method == Method::Get,
            "http.body without http.method = \"POST\"; expected both",
        );
        when(
            self.since_param.is_some() && self.since.is_none(),
            "http.since_param without http.since; expected both",
        );
        when(self.since.as_deref() == Some(""), "http.since is empty; expected a pointer like /updated_at");
        when(
            self.tls.key.is_some() && self.tls.cert.is_none(),
            "http.tls.key without http.tls.cert; expected both, or the certificate alone with the key in its file",
        );
        problems.extend(self.header_problems());
        problems.extend(self.auth.problems());
        problems.extend(self.names_problem());
        problems
    }

    /// URLs that are none, or two with one name.
    fn names_problem(&self) -> Option<String> {
        let mut seen: HashMap<String, usize> = HashMap::new();
        for (index, url) in self.urls.iter().enumerate() {
            let name = match name(url) {
                Ok(name) => name,
                Err(why) => return Some(format!("http.urls: {why}")),
            };
            if seen.insert(name.clone(), index).is_some() {
                return Some(format!(
                    "two endpoints are called {name}: batches are named after host and path; expected each once"
                ));
            }
        }
        None
    }

    /// The parameter that carries the highest value of `since`.
    pub fn since_param(&self) -> Option<String> {
        let last = |since: &String| {
            let step = since.rsplit('/').next().unwrap_or_default();
            step.replace("~1", "/").replace("~0", "~")
        };
        self.since_param.clone().or_else(|| self.since.as_ref().map(last))
    }

    /// Headers that would be sent twice, or not at all.
    fn header_problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let auth = &self.auth;
        let login = match &auth.header {
            Some(header) => Some(header.as_str()),
            None if auth.bearer.is_some() || auth.username.is_some() || auth.token_url.is_some() => {
                Some("Authorization")
            }
            None => None,
        };
        for (index, (name, _)) in self.headers.iter().enumerate() {
            if login.is_some_and(|login| login.eq_ignore_ascii_case(name)) {
                problems
                    .push(format!("http.headers has {name}, which http.auth makes; expected one of the two"));
            }
            if self.headers[..index].iter().any(|(other, _)| other.eq_ignore_ascii_case(name)) {
                problems.push(format!(
                    "http.headers has {name} twice; expected it once, values joined by commas"
                ));
            }
        }
        problems
    }
}

impl Auth {
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut when = |wrong: bool, line: &str| {
            if wrong {
                problems.push(line.to_owned());
            }
        };
        let ways =
            [self.bearer.is_some(), self.username.is_some(), self.header.is_some(), self.token_url.is_some()];
        when(
            ways.iter().filter(|way| **way).count() > 1,
            "http.auth has several ways to log in; expected one of bearer, username, header and token_url",
        );
        when(
            self.username.is_some() != self.password.is_some(),
            "http.auth.username and http.auth.password belong together; expected both or none",
        );
        when(
            self.header.is_some() != self.value.is_some(),
            "http.auth.header and http.auth.value belong together; expected both or none",
        );
        let oauth = [self.token_url.is_some(), self.client_id.is_some(), self.client_secret.is_some()];
        when(
            oauth.iter().any(|part| *part) && !oauth.iter().all(|part| *part),
            "http.auth.token_url, client_id and client_secret belong together; expected all or none",
        );
        when(
            self.scope.is_some() && self.token_url.is_none(),
            "http.auth.scope without http.auth.token_url; expected both",
        );
        if let Some(Err(why)) = self.token_url.as_deref().map(name) {
            problems.push(format!("http.auth.token_url: {why}"));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_host_and_path_and_nothing_else() {
        for (url, expected) in [
            ("https://api.example.com/v1/items?token=t#f", "api.example.com/v1/items"),
            ("HTTPS://API.example.com:443/v1/items/", "api.example.com/v1/items"),
            ("http://h:8080", "h:8080"),
            ("http://h:80/", "h"),
            ("http://[::1]:9/a/B%20c?x", "[::1]:9/a/B%20c"),
            ("http://h?q=1", "h"),
        ] {
            assert_eq!(name(url).as_deref(), Ok(expected), "{url}");
        }
    }

    #[test]
    fn what_is_no_url_is_told_without_its_secrets() {
        for url in [
            "api.example.com/x?secret",
            "ftp://h/?secret",
            "http:///?secret",
            "http://u:secret@h/",
            "http://h/a b?secret",
        ] {
            let why = name(url).unwrap_err();
            assert!(why.contains("expected ") && !why.contains("secret"), "{why}");
        }
    }

    #[cfg(feature = "http")]
    fn problems(change: impl FnOnce(&mut Http)) -> Vec<String> {
        let mut http = Http { urls: vec!["http://h/a".into()], ..Http::default() };
        change(&mut http);
        http.problems()
    }

    #[test]
    #[cfg(feature = "http")]
    fn what_belongs_together_is_said() {
        assert_eq!(problems(|_| {}), Vec::<String>::new());
        let one = |change: fn(&mut Http), expected: &str| {
            let found = problems(change);
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].contains(expected), "{found:?}");
        };
        one(|it| it.urls.clear(), "no endpoints: expected --url URL");
        one(|it| it.urls.push("https://H/a/?b=1".into()), "two endpoints are called h/a");
        one(|it| it.urls.push("nonsense".into()), "http.urls: a URL has no scheme");
        one(|it| it.pagination.style = Style::Cursor, "need http.records");
        one(|it| it.body = Some("{}".into()), "http.method");
        one(|it| it.since_param = Some("s".into()), "http.since_param without http.since");
        one(|it| it.tls.key = Some("k".into()), "http.tls.key without http.tls.cert");
        one(|it| it.auth.username = Some("u".into()), "belong together");
        one(|it| it.auth.value = Some(Secret::new("u")), "http.auth.header and http.auth.value");
        fn two(name: &str) -> Vec<(String, String)> {
            vec![(name.to_owned(), "1".to_owned()), ("X-A".to_owned(), "2".to_owned())]
        }
        one(|it| it.headers = two("x-a"), "http.headers has X-A twice");
        one(
            |it| (it.headers, it.auth.bearer) = (two("authorization"), Some(Secret::new("t"))),
            "http.headers has authorization, which http.auth makes",
        );
        one(
            |it| {
                (it.headers, it.auth.header) = (two("X-Key"), Some("x-key".into()));
                it.auth.value = Some(Secret::new("v"));
            },
            "http.headers has X-Key, which http.auth makes",
        );
        one(|it| it.auth.client_id = Some("u".into()), "belong together; expected all or none");
        one(
            |it| {
                (it.auth.bearer, it.auth.header, it.auth.value) =
                    (Some(Secret::new("b")), Some("X".into()), Some(Secret::new("v")))
            },
            "several ways to log in",
        );
    }

    #[test]
    fn the_parameter_of_since_is_called_like_the_field() {
        let named = |since: &str, param: Option<&str>| {
            Http { since: Some(since.into()), since_param: param.map(str::to_owned), ..Http::default() }
                .since_param()
        };
        assert_eq!(named("/meta/updated_at", None).as_deref(), Some("updated_at"));
        assert_eq!(named("/updated_at", Some("since")).as_deref(), Some("since"));
        assert_eq!(Http::default().since_param(), None);
    }
}
