//! The legacy display element (RFC 9788 sections 2.1.2, 4.10, 5.2.2): hidden fields at the top of the text, for mail programs that do not
//! know header protection.

use memchr::memmem;

use super::content_type_field;
use crate::mime::entity::{Entity, MimeLimits, TransferEncoding};
use crate::mime::header::{Field, MimeError};
use crate::smime::seal::{is_content_field, push_field};

const PARAMETER: &str = "hp-legacy-display";
const DIV: &str = "<div class=\"header-protection-legacy-display\">";
const DIV_END: &[u8] = b"</div>";

/// The fields as people read them, a line each.
pub(super) fn text(fields: &[&Field]) -> String {
    fields.iter().map(|field| format!("{}: {}\r\n", field.name(), field.decoded().replace(['\r', '\n'], " "))).collect()
}

/// MIME fields, empty line and body of `message`: its Content-Type says `hp`, and its main text parts begin with `display`. A part in a
/// character set that cannot take it stays without.
pub(super) fn with_display(
    message: &Entity,
    display: Option<&str>,
    hp: &str,
    limits: &MimeLimits,
) -> Result<Vec<u8>, MimeError> {
    let add = |body: Vec<u8>, html: bool| -> Vec<u8> {
        let Some(display) = display else { return body };
        if html { add_html(&body, display) } else { [display.as_bytes(), b"\r\n", &body].concat() }
    };
    let marked = |entity: &Entity| display.is_some_and(|display| takes(entity, display));
    let edit = Edit { root: Some(("hp", Some(hp))), leaf: (PARAMETER, Some("1")), wanted: &marked, body: &add, limits };
    edit.write(message, true)
}

/// The decrypted entity without what told of its protection: `hp` and the display element.
pub(in crate::smime) fn without_display(entity: &Entity, limits: &MimeLimits) -> Option<Entity> {
    entity.content_type().ok()?.parameter("hp")?;
    let remove = |body: Vec<u8>, html: bool| if html { without_html(&body) } else { without_lines(&body) };
    let marked = |entity: &Entity| entity.content_type().is_ok_and(|one| one.parameter(PARAMETER) == Some("1"));
    let edit = Edit { root: Some(("hp", None)), leaf: (PARAMETER, None), wanted: &marked, body: &remove, limits };
    let octets = edit.write(entity, true).ok()?;
    Entity::parse(octets.into(), limits).ok()
}

/// Writes an entity anew, its main text parts edited.
struct Edit<'e> {
    /// A parameter of the root's Content-Type to set or take away.
    root: Option<(&'e str, Option<&'e str>)>,
    /// The same for an edited leaf.
    leaf: (&'e str, Option<&'e str>),
    /// Which leaves are edited.
    wanted: &'e dyn Fn(&Entity) -> bool,
    /// The body edited; told whether it is HTML.
    body: &'e dyn Fn(Vec<u8>, bool) -> Vec<u8>,
    limits: &'e MimeLimits,
}

impl Edit<'_> {
    fn write(&self, entity: &Entity, is_root: bool) -> Result<Vec<u8>, MimeError> {
        let content_type = entity.content_type()?;
        let root = self.root.filter(|_| is_root);
        match content_type.essence.as_str() {
            "text/plain" | "text/html" if !is_attached(entity) && (self.wanted)(entity) => {
                let html = content_type.essence == "text/html";
                let body = (self.body)(entity.decoded_body()?.to_vec(), html);
                self.written(entity, root, true, &body)
            }
            "multipart/mixed" | "multipart/related" | "multipart/alternative" => {
                let all = content_type.essence == "multipart/alternative";
                let parts = entity.parts(self.limits)?;
                let (mut body, mut done) = (Vec::with_capacity(entity.body.len() + 256), 0);
                for part in parts.iter().take(if all { usize::MAX } else { 1 }) {
                    let start = (part.raw.as_ptr() as usize).saturating_sub(entity.body.as_ptr() as usize);
                    body.extend_from_slice(entity.body.get(done..start).unwrap_or_default());
                    body.extend(self.write(part, false)?);
                    done = start.saturating_add(part.raw.len());
                }
                body.extend_from_slice(entity.body.get(done..).unwrap_or_default());
                self.written(entity, root, false, &body)
            }
            _ => self.written(entity, root, false, &entity.body),
        }
    }

    /// MIME fields, those to be written anew at their end, and `body`. An edited leaf is written without a transfer encoding: what sends it
    /// on encodes it.
    fn written(
        &self,
        entity: &Entity,
        root: Option<(&str, Option<&str>)>,
        leaf: bool,
        body: &[u8],
    ) -> Result<Vec<u8>, MimeError> {
        let encoded = leaf && entity.transfer_encoding()? != TransferEncoding::Identity;
        let new_type = root.is_some() || leaf;
        let mut out = Vec::with_capacity(body.len() + entity.header.raw.len() + 128);
        for field in entity.header.fields.iter().filter(|field| is_content_field(field.name())) {
            let dropped = (new_type && field.is("Content-Type")) || (leaf && field.is("Content-Transfer-Encoding"));
            if !dropped {
                push_field(&mut out, &field.raw);
            }
        }
        if new_type {
            out.extend(content_type_field(entity, |parameters| {
                for (name, value) in root.into_iter().chain(leaf.then_some(self.leaf)) {
                    match value {
                        Some(value) => parameters.set(name, value),
                        None => parameters.remove(name),
                    }
                }
                if leaf && !body.is_ascii() && charset(entity).is_none_or(|name| name == "us-ascii") {
                    parameters.set("charset", "utf-8");
                }
            })?);
        }
        if leaf && (encoded || !body.is_ascii()) {
            out.extend_from_slice(b"Content-Transfer-Encoding: 8bit\r\n");
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(body);
        Ok(out)
    }
}

fn charset(entity: &Entity) -> Option<String> {
    entity.content_type().ok()?.parameter("charset").map(str::to_ascii_lowercase)
}

/// Whether the display can be written in the part's character set.
fn takes(entity: &Entity, display: &str) -> bool {
    match charset(entity).as_deref() {
        None | Some("us-ascii") => entity.decoded_body().is_ok_and(|body| display.is_ascii() || body.is_ascii()),
        Some("utf-8") => true,
        Some(name) => display.is_ascii() && (name.starts_with("iso-8859-") || name.starts_with("windows-125")),
    }
}

fn is_attached(entity: &Entity) -> bool {
    entity
        .header
        .all("Content-Disposition")
        .any(|field| field.value().trim().to_ascii_lowercase().starts_with("attachment"))
}

fn add_html(body: &[u8], display: &str) -> Vec<u8> {
    let escaped = display.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let element = format!("{DIV}\r\n<pre>{escaped}</pre>\r\n</div>\r\n");
    let lower = body.to_ascii_lowercase();
    let after_tag = memmem::find(&lower, b"<body").and_then(|at| {
        let rest = lower.get(at..)?;
        Some(at + memchr::memchr(b'>', rest)? + 1)
    });
    let (head, tail) = body.split_at_checked(after_tag.unwrap_or(0)).unwrap_or((&[], body));
    [head, element.as_bytes(), tail].concat()
}

fn without_html(body: &[u8]) -> Vec<u8> {
    let found = memmem::find(body, DIV.as_bytes()).and_then(|start| {
        let end = start + memmem::find(body.get(start..)?, DIV_END)? + DIV_END.len();
        Some((body.get(..start)?, body.get(end..)?))
    });
    match found {
        Some((head, tail)) => [head, tail.strip_prefix(b"\r\n").unwrap_or(tail)].concat(),
        None => body.to_vec(),
    }
}

/// Without the lines up to the first empty one.
fn without_lines(body: &[u8]) -> Vec<u8> {
    let after = memmem::find(body, b"\r\n\r\n").and_then(|at| body.get(at + 4..));
    let after = after.or_else(|| memmem::find(body, b"\n\n").and_then(|at| body.get(at + 2..)));
    after.unwrap_or(body).to_vec()
}
