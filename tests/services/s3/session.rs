//! Requests with session tokens. The server takes only those of its own security service, so the proxy does what a
//! service does that lent keys: it checks that the token is signed, by the rules of signature version 4 as they are
//! written, and then signs the request anew without it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;

use sha2::{Digest, Sha256};

use super::{KEY, SECRET, Server};

const TOKEN: &str = "x-amz-security-token";

/// The head of the request without its token, or `None` if its signature is wrong.
pub fn without_token(head: &str) -> Option<String> {
    let headers: BTreeMap<String, &str> = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim()))
        .collect();
    if !headers.contains_key(TOKEN) {
        return Some(head.to_owned());
    }
    let authorization = headers.get("authorization")?;
    let field = |name: &str| {
        let (_, rest) = authorization.split_once(&format!("{name}="))?;
        rest.split(',').next().map(str::trim)
    };
    let (scope, names) = (field("Credential")?.split_once('/')?.1, field("SignedHeaders")?);
    if !names.split(';').any(|name| name == TOKEN)
        || signed(head, &headers, scope, names)? != field("Signature")?
    {
        return None;
    }
    let others: Vec<&str> = names.split(';').filter(|name| *name != TOKEN).collect();
    let fresh = signed(head, &headers, scope, &others.join(";"))?;
    let kept = head.split_inclusive("\r\n").filter(|line| !line.to_ascii_lowercase().starts_with(TOKEN));
    let head = kept.collect::<String>().replace(field("Signature")?, &fresh);
    Some(head.replace(names, &others.join(";")))
}

/// What the server answers to its owner.
#[track_caller]
pub fn ask(server: &Server, method: &str, target: &str, body: &str) -> String {
    let host = format!("127.0.0.1:{}", server.port);
    let mut stream = TcpStream::connect(&host).expect("it is up");
    stream.write_all(request(method, target, &host, body).as_bytes()).expect("it is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it is answered");
    assert!(answer.starts_with("HTTP/1.1 20"), "{answer}");
    answer
}

/// A whole request of the owner, signed.
fn request(method: &str, target: &str, host: &str, body: &str) -> String {
    let date = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let payload = hex(&Sha256::digest(body));
    let names = "host;x-amz-content-sha256;x-amz-date";
    let scope = format!("{}/us-east-1/s3/aws4_request", &date[..8]);
    let headers = [("host", host), ("x-amz-content-sha256", &payload), ("x-amz-date", &date)];
    let headers: BTreeMap<String, &str> = headers.map(|(name, value)| (name.to_owned(), value)).into();
    let mut head =
        format!("{method} {target} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    let signature = signed(&head, &headers, &scope, names).expect("all is there");
    head += &format!(
        "authorization: AWS4-HMAC-SHA256 Credential={KEY}/{scope},SignedHeaders={names},Signature={signature}\r\n"
    );
    headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
    format!("{head}\r\n{body}")
}

fn signed(head: &str, headers: &BTreeMap<String, &str>, scope: &str, names: &str) -> Option<String> {
    let mut words = head.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let lines: String = names
        .split(';')
        .map(|name| Some(format!("{name}:{}\n", headers.get(name)?)))
        .collect::<Option<String>>()?;
    let payload = headers.get("x-amz-content-sha256")?;
    let canonical = format!("{method}\n{path}\n{query}\n{lines}\n{names}\n{payload}");
    let date = headers.get("x-amz-date")?;
    let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hex(&Sha256::digest(canonical)));
    let key =
        scope.split('/').fold(format!("AWS4{SECRET}").into_bytes(), |key, part| mac(&key, part).to_vec());
    Some(hex(&mac(&key, &text)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn mac(key: &[u8], text: &str) -> [u8; 32] {
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    let inner = Sha256::new().chain_update(block.map(|byte| byte ^ 0x36)).chain_update(text).finalize();
    Sha256::new().chain_update(block.map(|byte| byte ^ 0x5c)).chain_update(inner).finalize().into()
}
