//! The live page in a real browser, compared with the status; on a desk and on a phone, by day and by night.

use std::fs::File;

use serde_json::Value;

use crate::browser::Browser;
use crate::runs::{Bench, lines};
use crate::state::make_fifo;
use crate::status::{BROKEN, FIRST, port_of, watched};

/// The text of all elements that a selector finds.
fn texts(browser: &mut Browser, selector: &str) -> Vec<String> {
    let found =
        browser.value(&format!("[...document.querySelectorAll('{selector}')].map(it => it.textContent)"));
    found.as_array().expect("a list").iter().map(|it| it.as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn the_page_shows_what_the_status_says_and_asks_nobody_else() {
    let Some(mut browser) = Browser::start() else { return };
    let watched = watched(&[]);
    watched.settled();
    let at = format!("http://127.0.0.1:{}/", watched.port);
    browser.show(&at);
    browser.wait("document.getElementById('phase')?.textContent === 'running'");
    let status: Value = serde_json::from_str(&watched.get("/status").body).expect("it is JSON");
    let numbers = texts(&mut browser, "#numbers b");
    for key in ["records_stored", "records_read", "records_rejected"] {
        assert!(numbers.contains(&status[key].to_string()), "{key} in {numbers:?}");
    }
    assert!(numbers.contains(&FIRST.to_string()) && numbers.contains(&BROKEN.to_string()), "{numbers:?}");
    assert_eq!(texts(&mut browser, ".stage h3").len(), status["stages"].as_array().expect("a list").len());
    assert_eq!(texts(&mut browser, "#partitions tbody tr td:first-child"), ["more", "in.json"]);
    assert!(texts(&mut browser, "#partitions td").contains(&"done".to_owned()));
    assert_eq!(texts(&mut browser, "#letters td"), ["invalid_json", &BROKEN.to_string()]);
    assert!(texts(&mut browser, "#letters p")[0].starts_with("invalid_json: in.json"));
    assert_eq!(texts(&mut browser, "#services"), ["none"]);
    let requests = browser.requests();
    assert!(requests.contains(&&*format!("{at}status")), "{requests:?}");
    assert!(requests.iter().all(|url| url.starts_with(&at)), "{requests:?}");
    assert!(browser.exceptions().is_empty(), "{:?}", browser.exceptions());
    watched.end().1.expect(3, &[]);
}

#[test]
fn the_page_fits_a_phone_and_is_dark_where_that_is_wanted() {
    let Some(mut browser) = Browser::start() else { return };
    let watched = watched(&[]);
    watched.settled();
    browser.show(&format!("http://127.0.0.1:{}/", watched.port));
    browser.wait("document.querySelectorAll('#partitions tbody tr').length === 2");
    // Brightness from 0 to 255 of text and of what is behind it.
    let bright = "['color', 'backgroundColor'].map(of => getComputedStyle(document.body)[of].match(/\\d+/g)\
                  .reduce((sum, part) => sum + part / 3, 0))";
    for (width, scheme) in [(390, "light"), (390, "dark"), (1280, "light"), (1280, "dark")] {
        browser.look(width, scheme);
        browser.wait(&format!(
            "innerWidth === {width} && matchMedia('(prefers-color-scheme: {scheme})').matches"
        ));
        // A desk has a scroll bar, too.
        let fits = browser.value("document.documentElement.scrollWidth <= innerWidth");
        assert_eq!(fits, true, "the page is wider than {width}");
        let cut = browser
            .value("[...document.querySelectorAll('.scroll')].every(it => it.scrollWidth <= it.clientWidth)");
        assert_eq!(cut, true, "a table is cut at {width}");
        let told = browser.value(bright);
        let [text, behind] = [0, 1].map(|index| told[index].as_f64().expect("a number"));
        let (dark, light) = if scheme == "dark" { (behind, text) } else { (text, behind) };
        assert!(dark < 50.0 && light > 200.0, "{width} {scheme}: {told}");
    }
    watched.end().1.expect(3, &[]);
}

#[test]
fn the_page_marks_the_limiting_stage_and_tells_when_nobody_answers() {
    let Some(mut browser) = Browser::start() else { return };
    let bench = Bench::new();
    bench.write("in.json", lines(0..200_000));
    // Nobody reads it: the output takes what a pipe takes, and no more.
    make_fifo(&bench.path("out.ndjson"));
    let _reader = File::options().read(true).write(true).open(bench.path("out.ndjson")).expect("it is there");
    let running = bench.start(&["in.json", "-o", "out.ndjson", "--status", "127.0.0.1:0"]);
    let port = port_of(&running);
    browser.show(&format!("http://127.0.0.1:{port}/"));
    browser.wait("document.querySelector('.limiting h3')?.firstChild.textContent === 'write'");
    assert_eq!(texts(&mut browser, ".limiting em"), ["limiting"]);
    assert_eq!(texts(&mut browser, "#letters"), ["none"]);
    assert_eq!(browser.value("document.getElementById('lost').hidden"), true);
    running.kill();
    browser.wait("!document.getElementById('lost').hidden");
    let lost = texts(&mut browser, "#lost");
    assert!(lost[0].starts_with("No answer since "), "{lost:?}");
    assert_eq!(texts(&mut browser, "#phase"), ["not reached"]);
}
