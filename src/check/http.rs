//! The part of `--check` that asks endpoints: for their first page, of which only the head is looked at.

use pipeline::config::{Config, SourceKind};
use pipeline::error::Retry;
use pipeline::http::pagination::Pages;
use pipeline::http::{Client, Error, shown};
use pipeline::job::http::{client, endpoints};
use pipeline::metrics::Services;
use pipeline::{Result, Stop};
use url::Url;

use super::{Finding, PATIENCE, Verdict};

/// A line for each endpoint that the run reads; none if it reads none.
pub(super) fn findings(config: &Config) -> Vec<Finding> {
    if config.input.source != SourceKind::Http {
        return Vec::new();
    }
    let mut config = config.clone();
    config.processing.timeout = config.processing.timeout.min(PATIENCE);
    let reached = endpoints(&config).and_then(|all| Ok((all, reach(&config)?)));
    match reached {
        Ok((all, client)) => all.iter().map(|(_, url)| ask(&config, &client, url)).collect(),
        Err(error) => vec![Finding { what: "endpoints".into(), verdict: Verdict::Wrong(error.to_string()) }],
    }
}

fn reach(config: &Config) -> Result<Client> {
    Ok(client(config, &Stop::new(), &Services::default())?)
}

fn ask(config: &Config, client: &Client, url: &Url) -> Finding {
    let what = format!("endpoint {}", shown(url));
    let pages = Pages::new(config.http.pagination.clone(), url, &config.http.query);
    let asked = pages.url(&pages.first()).map_err(Error::Config).and_then(|first| client.open(url, &first));
    match asked {
        Ok(reply) => Finding { what: format!("{what}: {}", reply.status.as_u16()), verdict: Verdict::Fine },
        Err(error) => Finding { what, verdict: verdict(&error) },
    }
}

fn verdict(error: &Error) -> Verdict {
    let hint = error.hint().map_or(String::new(), |hint| format!("; {hint}"));
    let why = format!("{error}{hint}");
    match (error, error.retry()) {
        (Error::Config(_), _) => Verdict::Wrong(why),
        (_, Retry::Permanent) => Verdict::Refused(why),
        (_, Retry::Transient) => Verdict::Failed(why),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::time::Duration;

    use super::super::exit_code;
    use super::*;
    use pipeline::config::Place;

    /// What is found where one request gets this status.
    fn found(status: u16) -> Vec<Finding> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/items?token=secret", listener.local_addr().unwrap());
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    head.push(byte[0]);
                }
                stream
                    .write_all(format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n").as_bytes())
                    .unwrap();
            });
            findings(&Config::from_http(vec![url], Place::Stdout))
        })
    }

    #[test]
    fn each_endpoint_is_asked_once() {
        for (status, code, line) in
            [(200, 0, "ok       "), (401, 4, "refused  "), (404, 4, "refused  "), (503, 1, "failed   ")]
        {
            let found = found(status);
            assert_eq!((found.len(), exit_code(&found)), (1, code), "{found:?}");
            let text = found[0].line();
            assert!(text.starts_with(&format!("{line}endpoint http://127.0.0.1:")), "{text}");
            assert!(text.contains("/items") && !text.contains("secret"), "{text}");
        }
    }

    #[test]
    fn an_endpoint_that_is_not_there_may_be_later_and_wrong_files_are_wrong() {
        let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut config = Config::from_http(vec![format!("http://{gone}/")], Place::Stdout);
        config.processing.timeout = Duration::from_secs(1);
        assert_eq!(exit_code(&findings(&config)), 1);
        config.http.urls = vec![format!("https://{gone}/")];
        config.http.tls.ca = Some("/none/there".into());
        let found = findings(&config);
        assert_eq!(exit_code(&found), 2);
        assert!(found[0].line().starts_with("wrong    endpoints: http.tls.ca /none/there"), "{found:?}");
        assert!(findings(&Config::default()).is_empty());
    }
}
