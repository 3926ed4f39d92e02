//! `[http.auth]`, `[http.pagination]`: who asks, and what leads from page to page.

use super::http::{POINTER, expected_url, free, is_header};
use super::read::{check, name, number, one_of, pointer, put, secret};
use super::{Default, Key, Shape, Wrong};
use crate::config::http::{self, Style};

const AUTH: &str = "http.auth";
const PAGES: &str = "http.pagination";
const PARAMETER: &str = "the name of a parameter";

pub(super) const KEYS: &[Key] = &[
    Key {
        section: AUTH,
        name: "bearer",
        shape: Shape::Secret,
        default: Default::Absent("env:API_TOKEN", "none"),
        help: "a token: env:NAME (a variable), file:PATH or the token itself",
        expected: "env:NAME, file:PATH or the token itself",
        set: |draft, value| put(&mut draft.config.http.auth.bearer, Some(secret(value)?)),
    },
    Key {
        section: AUTH,
        name: "username",
        shape: Shape::Text,
        default: Default::Absent("alice", "nobody logs in"),
        help: "who logs in (basic)",
        expected: "a name",
        set: |draft, value| put(&mut draft.config.http.auth.username, Some(name(value)?.to_owned())),
    },
    Key {
        section: AUTH,
        name: "password",
        shape: Shape::Secret,
        default: Default::Absent("env:API_PASSWORD", "none"),
        help: "the password of username",
        expected: "env:NAME, file:PATH or the password itself",
        set: |draft, value| put(&mut draft.config.http.auth.password, Some(secret(value)?)),
    },
    Key {
        section: AUTH,
        name: "header",
        shape: Shape::Text,
        default: Default::Absent("X-Api-Key", "none"),
        help: "the header that carries an API key",
        expected: "the name of a header",
        set: |draft, value| {
            let header = name(value)?;
            check(is_header(header))?;
            free(header)?;
            put(&mut draft.config.http.auth.header, Some(header.to_owned()))
        },
    },
    Key {
        section: AUTH,
        name: "value",
        shape: Shape::Secret,
        default: Default::Absent("file:/run/secrets/api-key", "none"),
        help: "the API key",
        expected: "env:NAME, file:PATH or the key itself",
        set: |draft, value| put(&mut draft.config.http.auth.value, Some(secret(value)?)),
    },
    Key {
        section: AUTH,
        name: "token_url",
        shape: Shape::Text,
        default: Default::Absent("https://login.example.com/oauth/token", "none"),
        help: "where tokens are (OAuth 2 client credentials); they are renewed before they expire",
        expected: "http://HOST[:PORT]/PATH or https://…",
        set: |draft, value| {
            let url = name(value).map_err(|_| expected_url("the URL is empty"))?;
            http::name(url).map_err(Wrong::Because)?;
            put(&mut draft.config.http.auth.token_url, Some(url.to_owned()))
        },
    },
    Key {
        section: AUTH,
        name: "client_id",
        shape: Shape::Text,
        default: Default::Absent("pipeline", "none"),
        help: "who asks for tokens",
        expected: "a name",
        set: |draft, value| put(&mut draft.config.http.auth.client_id, Some(name(value)?.to_owned())),
    },
    Key {
        section: AUTH,
        name: "client_secret",
        shape: Shape::Secret,
        default: Default::Absent("env:CLIENT_SECRET", "none"),
        help: "the secret of client_id",
        expected: "env:NAME, file:PATH or the secret itself",
        set: |draft, value| put(&mut draft.config.http.auth.client_secret, Some(secret(value)?)),
    },
    Key {
        section: AUTH,
        name: "scope",
        shape: Shape::Text,
        default: Default::Absent("items.read", "none"),
        help: "what tokens are asked for",
        expected: "scopes, with spaces between",
        set: |draft, value| put(&mut draft.config.http.auth.scope, Some(name(value)?.to_owned())),
    },
    Key {
        section: PAGES,
        name: "style",
        shape: Shape::Text,
        default: Default::Is("none"),
        help: "what leads to the next page: none, page, offset, cursor, link (the header Link) or next-url",
        expected: "none, page, offset, cursor, link or next-url",
        set: |draft, value| {
            let all = [Style::None, Style::Page, Style::Offset, Style::Cursor, Style::Link, Style::NextUrl];
            let kinds = all.map(|style| (style.name(), style));
            put(&mut draft.config.http.pagination.style, one_of(value, &kinds)?)
        },
    },
    Key {
        section: PAGES,
        name: "page_param",
        shape: Shape::Text,
        default: Default::Is("page"),
        help: "page: the parameter with the page's number",
        expected: PARAMETER,
        set: |draft, value| put(&mut draft.config.http.pagination.page_param, name(value)?.to_owned()),
    },
    Key {
        section: PAGES,
        name: "first_page",
        shape: Shape::Number,
        default: Default::Is("1"),
        help: "page: the number of the first page",
        expected: "a whole number, 0 or more",
        set: |draft, value| put(&mut draft.config.http.pagination.first_page, number(value)?),
    },
    Key {
        section: PAGES,
        name: "size_param",
        shape: Shape::Text,
        default: Default::Is("per_page"),
        help: "page, cursor: the parameter with page_size",
        expected: PARAMETER,
        set: |draft, value| put(&mut draft.config.http.pagination.size_param, name(value)?.to_owned()),
    },
    Key {
        section: PAGES,
        name: "page_size",
        shape: Shape::Number,
        default: Default::Absent("100", "the server's"),
        help: "page, offset, cursor: how many records a page is to have",
        expected: "a whole number of records, 1 or more",
        set: |draft, value| {
            let size: u64 = number(value)?;
            check(size > 0)?;
            put(&mut draft.config.http.pagination.page_size, Some(size))
        },
    },
    Key {
        section: PAGES,
        name: "offset_param",
        shape: Shape::Text,
        default: Default::Is("offset"),
        help: "offset: the parameter with the number of records before the page",
        expected: PARAMETER,
        set: |draft, value| put(&mut draft.config.http.pagination.offset_param, name(value)?.to_owned()),
    },
    Key {
        section: PAGES,
        name: "limit_param",
        shape: Shape::Text,
        default: Default::Is("limit"),
        help: "offset: the parameter with page_size",
        expected: PARAMETER,
        set: |draft, value| put(&mut draft.config.http.pagination.limit_param, name(value)?.to_owned()),
    },
    Key {
        section: PAGES,
        name: "cursor_param",
        shape: Shape::Text,
        default: Default::Is("cursor"),
        help: "cursor: the parameter with the cursor",
        expected: PARAMETER,
        set: |draft, value| put(&mut draft.config.http.pagination.cursor_param, name(value)?.to_owned()),
    },
    Key {
        section: PAGES,
        name: "cursor",
        shape: Shape::Text,
        default: Default::Is("/next_cursor"),
        help: "cursor: where the next cursor stands in a page (a JSON pointer); none, null or empty: it was the last",
        expected: POINTER,
        set: |draft, value| put(&mut draft.config.http.pagination.cursor, pointer(value)?),
    },
    Key {
        section: PAGES,
        name: "next",
        shape: Shape::Text,
        default: Default::Is("/next"),
        help: "next-url: where the next URL stands in a page (a JSON pointer); none, null or empty: it was the last",
        expected: POINTER,
        set: |draft, value| put(&mut draft.config.http.pagination.next, pointer(value)?),
    },
    Key {
        section: PAGES,
        name: "max_pages",
        shape: Shape::Number,
        default: Default::Absent("1000", "no limit"),
        help: "a pass ends behind so many pages, with a warning",
        expected: "a whole number of pages, 1 or more",
        set: |draft, value| {
            let pages: u64 = number(value)?;
            check(pages > 0)?;
            put(&mut draft.config.http.pagination.max_pages, Some(pages))
        },
    },
];
