//! What is asked next: [`Pages`] makes the URL of each page, and tells from what a page said how it goes on. Pure.
//!
//! A pass ends behind a page without records, a page that leads nowhere, a cursor or URL that was seen before in this
//! pass, or the last page that is allowed. What leads on is an [`At`], small and serializable: it is all that another
//! run needs to ask for the same page again.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::{Deserialize, Serialize};
use url::Url;
use url::form_urlencoded::Serializer;

use crate::config::http::{Pagination, Style};
use crate::json::Told;

/// So many cursors are remembered, the first ones of a pass: 16 MiB. A loop that leads back to none of them would have
/// to begin behind a million pages.
const REMEMBERED: usize = 1 << 20;
/// So many pages in a row with the same records, and the server takes no notice of the parameter.
const SAME: u32 = 3;

const NO_URL: &str = "what leads on is no URL";

/// How a page is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum At {
    /// It is the first one.
    First,
    /// By its number.
    Number(u64),
    /// By the number of records before it.
    Offset(u64),
    /// By this cursor.
    Cursor(String),
    /// It is this URL.
    Url(String),
    /// It is this URL with parameters of the first one in it: for each, its place in the query, and its number among
    /// those of the first URL. Servers repeat what they were asked with, and that may be secret: it is not kept.
    Own {
        /// The URL without them.
        url: String,
        /// Where they stand, in order.
        own: Vec<(usize, usize)>,
    },
}

/// What a page said.
#[derive(Clone, Debug)]
pub struct Said<'a> {
    /// How many records it had, rejected ones included.
    pub records: u64,
    /// Hash of its records.
    pub hash: u64,
    /// What stands at the pointer of the cursor or the next URL.
    pub told: &'a Told,
    /// The headers `Link`, one after another.
    pub links: Vec<String>,
    /// Where the page came from: what next URLs are relative to.
    pub url: &'a Url,
}

/// How a pass goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// With this page.
    Page(At),
    /// Not at all: there are no more.
    End,
    /// Not at all: it is the first page, and what leads on from others is missing in it.
    Alone {
        /// What is missing.
        missing: String,
        /// Whether the page is as large as was asked for, so that there should be more.
        full: bool,
    },
    /// Not at all: the page is empty, although something leads on from it.
    Empty,
    /// Not at all: this many pages were allowed.
    Capped(u64),
    /// Not at all: what leads on led here before.
    Loop,
}

/// The pages of one pass over an endpoint.
#[derive(Debug)]
pub struct Pages {
    settings: Pagination,
    first: Url,
    seen: HashSet<u64>,
    last: (u64, u32),
}

impl Pages {
    /// Pages of `url`, with these parameters besides.
    pub fn new(settings: Pagination, url: &Url, query: &[(String, String)]) -> Self {
        let mut first = url.clone();
        first.set_fragment(None);
        for (name, value) in query {
            set(&mut first, name, value);
        }
        Pages { settings, first, seen: HashSet::new(), last: (0, 0) }
    }

    /// Where a pass begins.
    pub fn first(&self) -> At {
        match self.settings.style {
            Style::Page => At::Number(self.settings.first_page),
            Style::Offset => At::Offset(0),
            Style::None | Style::Cursor | Style::Link | Style::NextUrl => At::First,
        }
    }

    /// The pointer to what leads on, if that stands in the page.
    pub fn pointer(settings: &Pagination) -> Option<&str> {
        match settings.style {
            Style::Cursor => Some(&settings.cursor),
            Style::NextUrl => Some(&settings.next),
            Style::None | Style::Page | Style::Offset | Style::Link => None,
        }
    }

    /// The URL of a page.
    ///
    /// # Errors
    /// If what leads there is no URL.
    pub fn url(&self, at: &At) -> Result<Url, String> {
        let settings = &self.settings;
        let mut url = self.first.clone();
        let size = |url: &mut Url, name: &str| {
            if let Some(size) = settings.page_size {
                set(url, name, &size.to_string());
            }
        };
        match at {
            At::First if settings.style == Style::Cursor => size(&mut url, &settings.size_param),
            At::First => {}
            At::Number(number) => {
                set(&mut url, &settings.page_param, &number.to_string());
                size(&mut url, &settings.size_param);
            }
            At::Offset(offset) => {
                set(&mut url, &settings.offset_param, &offset.to_string());
                size(&mut url, &settings.limit_param);
            }
            At::Cursor(cursor) => {
                set(&mut url, &settings.cursor_param, cursor);
                size(&mut url, &settings.size_param);
            }
            At::Url(text) => url = parse(text)?,
            At::Own { url: rest, own } => url = self.whole(parse(rest)?, own),
        }
        Ok(url)
    }

    /// How it goes on behind page `page` (from 0) of this pass, which was asked for by `at`.
    ///
    /// # Errors
    /// If that cannot be told: what the page says makes no sense.
    pub fn next(&mut self, at: &At, page: u64, said: &Said<'_>) -> Result<Next, String> {
        if said.records == 0 {
            let leads = match self.settings.style {
                Style::None | Style::Page | Style::Offset => false,
                Style::Cursor | Style::NextUrl => matches!(text(said.told, ""), Ok(Some(_))),
                Style::Link => next_link(&said.links).is_some(),
            };
            return Ok(if leads { Next::Empty } else { Next::End });
        }
        self.remember(at);
        let next = match self.settings.style {
            Style::None => None,
            Style::Page => match at {
                At::Number(number) => Some(At::Number(number + 1)),
                _ => None,
            },
            Style::Offset => match at {
                At::Offset(offset) => Some(At::Offset(offset + said.records)),
                _ => None,
            },
            Style::Cursor => text(said.told, "cursor")?.map(At::Cursor),
            Style::NextUrl => {
                text(said.told, "URL")?.map(|text| self.join_new(said.url, &text)).transpose()?
            }
            Style::Link => next_link(&said.links).map(|text| self.join_new(said.url, text)).transpose()?,
        };
        let Some(next) = next else { return Ok(self.end(page, said)) };
        if self.is_known(&next) {
            return Ok(Next::Loop);
        }
        if matches!(self.settings.style, Style::Page | Style::Offset) {
            self.notice(said)?;
        }
        match self.settings.max_pages {
            Some(most) if page + 1 >= most => Ok(Next::Capped(most)),
            _ => Ok(Next::Page(next)),
        }
    }

    /// Nothing leads on. That may be since the pointer is wrong.
    fn end(&self, page: u64, said: &Said<'_>) -> Next {
        let missing = match self.settings.style {
            Style::Cursor | Style::NextUrl if *said.told == Told::Nothing => {
                format!("nothing at {}", Pages::pointer(&self.settings).unwrap_or_default())
            }
            Style::Link => "no header Link with rel=next".to_owned(),
            _ => return Next::End,
        };
        match page {
            0 => Next::Alone {
                missing,
                full: self.settings.page_size.is_some_and(|size| said.records >= size),
            },
            _ => Next::End,
        }
    }

    /// What is at `text`, which stands on the page at `url`. That page is known from now on by its URL, too, however it
    /// was asked for.
    fn join_new(&mut self, url: &Url, text: &str) -> Result<At, String> {
        let here = self.join(url, url.as_str())?;
        self.remember(&here);
        self.join(url, text)
    }

    /// What is at `text`, which stands on the page at `url`.
    fn join(&self, url: &Url, text: &str) -> Result<At, String> {
        let mut next = url.join(text.trim()).map_err(|_| NO_URL.to_owned())?;
        next.set_fragment(None);
        let (mut rest, mut own) = (Vec::new(), Vec::new());
        for (place, part) in next.query().unwrap_or_default().split('&').enumerate() {
            let pair = url::form_urlencoded::parse(part.as_bytes()).next();
            let known = pair.and_then(|pair| self.first.query_pairs().position(|other| other == pair));
            match known {
                Some(index) => own.push((place, index)),
                None => rest.push(part),
            }
        }
        if own.is_empty() {
            return Ok(At::Url(next.into()));
        }
        let rest = rest.join("&");
        next.set_query(if rest.is_empty() { None } else { Some(&rest) });
        Ok(At::Own { url: next.into(), own })
    }

    /// The URL with parameters of the first one in their places again.
    fn whole(&self, mut url: Url, own: &[(usize, usize)]) -> Url {
        let mut parts: Vec<String> =
            url.query().map_or_else(Vec::new, |it| it.split('&').map(str::to_owned).collect());
        for (place, index) in own {
            let Some((name, value)) = self.first.query_pairs().nth(*index) else { continue };
            let pair = Serializer::new(String::new()).append_pair(&name, &value).finish();
            parts.insert((*place).min(parts.len()), pair);
        }
        url.set_query(Some(&parts.join("&")));
        url
    }

    /// A server that knows nothing of the parameter gives the same page again and again.
    fn notice(&mut self, said: &Said<'_>) -> Result<(), String> {
        let same = self.last.0 == said.hash;
        self.last = (said.hash, if same { self.last.1 + 1 } else { 1 });
        match self.last.1 >= SAME {
            true => Err(format!(
                "{SAME} pages in a row are the same: the server takes no notice of the parameter that tells them apart"
            )),
            false => Ok(()),
        }
    }

    fn remember(&mut self, at: &At) {
        if self.seen.len() < REMEMBERED {
            self.seen.insert(hash(at));
        }
    }

    fn is_known(&self, at: &At) -> bool {
        self.seen.contains(&hash(at))
    }
}

fn hash(at: &At) -> u64 {
    let mut hasher = DefaultHasher::new();
    match at {
        At::First => 0u8.hash(&mut hasher),
        At::Number(number) => (1u8, number).hash(&mut hasher),
        At::Offset(offset) => (2u8, offset).hash(&mut hasher),
        At::Cursor(text) => (3u8, text).hash(&mut hasher),
        At::Url(text) => (4u8, text).hash(&mut hasher),
        At::Own { url, own } => (5u8, url, own).hash(&mut hasher),
    }
    hasher.finish()
}

/// Sets a parameter, in the place of those that have its name already.
pub fn set(url: &mut Url, name: &str, value: &str) {
    let taken = url.query_pairs().any(|(other, _)| other == name);
    if taken {
        // Only then: what stands in a query is encoded as the user or the server likes it.
        let others: Vec<(String, String)> =
            url.query_pairs().into_owned().filter(|(other, _)| other != name).collect();
        url.set_query(None);
        if !others.is_empty() {
            url.query_pairs_mut().extend_pairs(others);
        }
    }
    url.query_pairs_mut().append_pair(name, value);
}

fn parse(text: &str) -> Result<Url, String> {
    Url::parse(text).map_err(|_| NO_URL.to_owned())
}

/// What leads on, as text; `None` where nothing, `null`, `false` or an empty text stands.
fn text(told: &Told, what: &str) -> Result<Option<String>, String> {
    let odd = || format!("what stands where the next {what} should is neither text nor number");
    let text = match told {
        Told::Nothing => return Ok(None),
        Told::Other => return Err(odd()),
        Told::Scalar(text) => text,
    };
    match serde_json::from_str(text).map_err(|_| odd())? {
        serde_json::Value::Null | serde_json::Value::Bool(false) => Ok(None),
        serde_json::Value::String(text) if text.is_empty() => Ok(None),
        serde_json::Value::String(text) => Ok(Some(text)),
        // As it is written: a number of twenty digits is a cursor, too.
        serde_json::Value::Number(_) => Ok(Some(text.clone())),
        _ => Err(odd()),
    }
}

/// The target of the first link with the relation `next` (RFC 8288, section 3).
fn next_link(headers: &[String]) -> Option<&str> {
    headers.iter().find_map(|header| {
        let mut rest = header.as_str();
        loop {
            let begin = rest.find('<')?;
            let end = begin + rest[begin..].find('>')?;
            let target = &rest[begin + 1..end];
            let found;
            (found, rest) = parameters(&rest[end + 1..]);
            if found.iter().any(|(name, value)| {
                name.eq_ignore_ascii_case("rel")
                    && value
                        .trim_matches('\'')
                        .split_ascii_whitespace()
                        .any(|it| it.eq_ignore_ascii_case("next"))
            }) {
                return Some(target);
            }
        }
    })
}

/// The parameters of a link, and what stands behind the comma that ends it.
fn parameters(text: &str) -> (Vec<(&str, &str)>, &str) {
    let (mut found, mut rest) = (Vec::new(), text);
    loop {
        rest = rest.trim_start_matches([' ', '\t']);
        let Some(parameter) = rest.strip_prefix(';') else {
            return (found, rest.split_once(',').map_or("", |(_, rest)| rest));
        };
        let end = parameter.find(['=', ';', ',']).unwrap_or(parameter.len());
        let name = parameter[..end].trim();
        rest = &parameter[end..];
        let Some(value) = rest.strip_prefix('=') else {
            found.push((name, ""));
            continue;
        };
        let value = value.trim_start_matches([' ', '\t']);
        let (value, behind) = match value.strip_prefix('"') {
            Some(quoted) => {
                let end = quoted_end(quoted);
                (&quoted[..end], quoted.get(end + 1..).unwrap_or(""))
            }
            None => value.split_at(value.find([';', ',']).unwrap_or(value.len())),
        };
        found.push((name, value.trim()));
        rest = behind;
    }
}

/// Where a quoted text ends that began before `text`; a backslash takes what is special from the character behind it
/// (RFC 9110, section 5.6.4).
fn quoted_end(text: &str) -> usize {
    let mut escaped = false;
    let is_end = |byte: u8| {
        let end = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        end
    };
    text.bytes().position(is_end).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(style: Style, change: impl FnOnce(&mut Pagination)) -> Pages {
        let mut settings = Pagination { style, ..Pagination::default() };
        change(&mut settings);
        let url = Url::parse("https://h/a?x=1&page=9#f").unwrap();
        Pages::new(settings, &url, &[("q".into(), "a b&c".into())])
    }

    fn said<'a>(records: u64, told: &'a Told, links: &[&'a str], url: &'a Url) -> Said<'a> {
        Said {
            records,
            hash: records ^ links.len() as u64,
            told,
            links: links.iter().map(ToString::to_string).collect(),
            url,
        }
    }

    #[track_caller]
    fn url(pages: &Pages, at: &At, expected: &str) {
        assert_eq!(pages.url(at).unwrap().as_str(), expected);
    }

    #[test]
    fn pages_by_number() {
        let mut it = pages(Style::Page, |it| it.page_size = Some(50));
        let (first, here) = (it.first(), Url::parse("https://h/a").unwrap());
        url(&it, &first, "https://h/a?x=1&q=a+b%26c&page=1&per_page=50");
        let next = it.next(&first, 0, &said(50, &Told::Nothing, &[], &here)).unwrap();
        assert_eq!(next, Next::Page(At::Number(2)));
        assert_eq!(it.next(&At::Number(2), 1, &said(0, &Told::Nothing, &[], &here)), Ok(Next::End));
        let mut it = pages(Style::Page, |it| (it.first_page, it.max_pages) = (0, Some(1)));
        assert_eq!(it.next(&it.first(), 0, &said(1, &Told::Nothing, &[], &here)), Ok(Next::Capped(1)));
    }

    #[test]
    fn a_server_that_knows_nothing_of_pages_is_found_out() {
        let (mut it, here) = (pages(Style::Page, |_| {}), Url::parse("https://h/a").unwrap());
        for page in 0..2 {
            assert!(it.next(&At::Number(page + 1), page, &said(7, &Told::Nothing, &[], &here)).is_ok());
        }
        assert!(
            it.next(&At::Number(3), 2, &said(7, &Told::Nothing, &[], &here))
                .unwrap_err()
                .contains("the same")
        );
    }

    #[test]
    fn pages_by_offset_go_on_behind_what_came() {
        let (mut it, here) =
            (pages(Style::Offset, |it| it.page_size = Some(100)), Url::parse("https://h/a").unwrap());
        url(&it, &it.first(), "https://h/a?x=1&page=9&q=a+b%26c&offset=0&limit=100");
        // A server may give fewer than asked for.
        let next = it.next(&At::Offset(0), 0, &said(30, &Told::Nothing, &[], &here));
        assert_eq!(next, Ok(Next::Page(At::Offset(30))));
    }

    #[test]
    fn cursors_lead_on_until_there_is_none_or_one_is_seen_again() {
        let here = Url::parse("https://h/a").unwrap();
        let scalar = |text: &str| Told::Scalar(text.into());
        let mut it = pages(Style::Cursor, |it| it.page_size = Some(5));
        url(&it, &At::First, "https://h/a?x=1&page=9&q=a+b%26c&per_page=5");
        url(&it, &At::Cursor("c/1".into()), "https://h/a?x=1&page=9&q=a+b%26c&cursor=c%2F1&per_page=5");
        let next = |it: &mut Pages, at: At, told: &Told| it.next(&at, 1, &said(1, told, &[], &here));
        let c = |text: &str| At::Cursor(text.into());
        assert_eq!(next(&mut it, At::First, &scalar("\"a\\n\"")), Ok(Next::Page(c("a\n"))));
        assert_eq!(
            next(&mut it, c("a\n"), &scalar("12345678901234567890123")),
            Ok(Next::Page(c("12345678901234567890123")))
        );
        assert_eq!(next(&mut it, c("b"), &scalar("\"a\\n\"")), Ok(Next::Loop));
        assert_eq!(next(&mut it, c("d"), &scalar("\"d\"")), Ok(Next::Loop));
        for end in [Told::Nothing, scalar("null"), scalar("\"\""), scalar("false")] {
            assert_eq!(next(&mut it, c("e"), &end), Ok(Next::End));
        }
        for odd in [Told::Other, scalar("true"), scalar("tru")] {
            assert!(next(&mut it, c("e"), &odd).is_err());
        }
        // On the first page the pointer may be wrong.
        let it = pages(Style::Cursor, |it| (it.cursor, it.page_size) = ("/meta/next".into(), Some(5)));
        for (records, full) in [(4, false), (5, true)] {
            let alone = Next::Alone { missing: "nothing at /meta/next".into(), full };
            assert_eq!(it.end(0, &said(records, &Told::Nothing, &[], &here)), alone);
            assert_eq!(it.end(0, &said(records, &scalar("null"), &[], &here)), Next::End);
            assert_eq!(it.end(1, &said(records, &Told::Nothing, &[], &here)), Next::End);
        }
        let mut it = pages(Style::Cursor, |it| it.page_size = Some(5));
        // Also behind an empty page.
        assert_eq!(it.next(&c("f"), 9, &said(0, &scalar("\"g\""), &[], &here)), Ok(Next::Empty));
        assert_eq!(it.next(&c("f"), 9, &said(0, &scalar("null"), &[], &here)), Ok(Next::End));
    }

    #[test]
    fn a_page_is_known_by_its_url_however_it_was_asked_for() {
        let here = Url::parse("https://h/a?x=1&page=9&q=a+b%26c").unwrap();
        for style in [Style::NextUrl, Style::Link] {
            let mut it = pages(style, |_| {});
            let mut next = |at: &At, to: &str| {
                let (told, link) = (Told::Scalar(format!("\"{to}\"")), format!("<{to}>; rel=next"));
                it.next(at, 0, &said(1, &told, &[&link], &here)).unwrap()
            };
            assert_eq!(next(&At::First, "?x=1&page=9&q=a+b%26c"), Next::Loop);
            assert!(matches!(next(&At::First, "?x=1&page=10"), Next::Page(_)));
            assert_eq!(next(&At::Url("https://h/b".into()), "/b"), Next::Loop);
        }
    }

    #[test]
    fn urls_lead_on_from_where_the_page_came_from() {
        let here = Url::parse("https://h/v1/a?p=1").unwrap();
        let mut it = pages(Style::NextUrl, |_| {});
        let told = Told::Scalar("\"?p=2#x\"".into());
        let next = it.next(&At::First, 0, &said(1, &told, &[], &here)).unwrap();
        assert_eq!(next, Next::Page(At::Url("https://h/v1/a?p=2".into())));
        url(&it, &At::Url("https://h/v1/a?p=2".into()), "https://h/v1/a?p=2");
        let told = Told::Scalar("\"http://\"".into());
        assert!(it.next(&At::First, 0, &said(1, &told, &[], &here)).is_err());
    }

    #[test]
    fn what_the_first_url_was_asked_with_is_not_kept() {
        let here = Url::parse("https://h/a?x=1&page=9").unwrap();
        let mut it = pages(Style::NextUrl, |_| {});
        let mut check = |next: &str, kept: &str| {
            let told = Told::Scalar(format!("\"{next}\""));
            let Ok(Next::Page(at)) = it.next(&At::First, 0, &said(1, &told, &[], &here)) else {
                panic!("{next}")
            };
            let text = serde_json::to_string(&at).unwrap();
            assert!(!text.contains("x=1") && !text.contains("a+b") && text.contains(kept), "{text}");
            assert_eq!(serde_json::from_str::<At>(&text).unwrap(), at);
            let (whole, expected) = (it.url(&at).unwrap(), here.join(next).unwrap());
            assert!(whole.query_pairs().eq(expected.query_pairs()), "{whole}");
            assert_eq!(whole.path(), expected.path());
        };
        check("?x=1&after=5&q=a%20b%26c", "after=5");
        check("/b?after=%2F&x=1", "after=%2F");
        check("?q=a+b%26c&x=1", "https://h/a");
        check("?x=2&after=5", "x=2&after=5");
    }

    #[test]
    fn links_have_relations() {
        let next = |headers: &[&str]| {
            let headers: Vec<String> = headers.iter().map(ToString::to_string).collect();
            next_link(&headers).map(str::to_owned)
        };
        let github =
            "<https://h/a?page=1>; rel=\"prev\", <https://h/a?page=3>; rel=\"next\", <x>; rel=\"last\"";
        assert_eq!(next(&[github]).as_deref(), Some("https://h/a?page=3"));
        assert_eq!(next(&["</a,b?c=d;e>; title=\"a, <b>\"; rel=next"]).as_deref(), Some("/a,b?c=d;e"));
        assert_eq!(next(&["<a>; REL=\"last NEXT\""]).as_deref(), Some("a"));
        assert_eq!(next(&["<a>; rel=prev", "<b>;rel=next"]).as_deref(), Some("b"));
        assert_eq!(next(&["<a>; title=\"a \\\" <q>; rel=prev\"; rel='next'"]).as_deref(), Some("a"));
        assert_eq!(next(&["<a>; title=\"\\\\\"; rel=next"]).as_deref(), Some("a"));
        for none in
            ["", "<a>", "<a>; rel=nextdoor", "a; rel=next", "<a; rel=next", "<a>; rel", "<a>; rel=\"next"]
        {
            assert_eq!(next(&[none]).is_some(), none == "<a>; rel=\"next", "{none}");
        }
    }

    #[test]
    fn what_leads_on_can_be_kept() {
        for at in
            [At::First, At::Number(7), At::Offset(9), At::Cursor("é\"".into()), At::Url("http://h/".into())]
        {
            let text = serde_json::to_string(&at).unwrap();
            assert_eq!(serde_json::from_str::<At>(&text).unwrap(), at);
        }
    }
}
