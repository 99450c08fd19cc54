//! A message as a tree of layers and parts, for people. The demo draws with it too.

use crate::mime::entity::{Entity, MimeLimits};
use crate::mime::header::ContentType;
use crate::smime::open::Opened;
use crate::smime::verdict::{Layer, SignerReport};

/// Nodes drawn of one message's parts at most.
const PARTS: usize = 200;

/// A line of the tree and what hangs below it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    pub label: String,
    pub children: Vec<Node>,
}

impl Node {
    /// A line with nothing below it; control characters are escaped (A28).
    pub fn new(label: impl AsRef<str>) -> Self {
        Self { label: printable(label.as_ref()), children: Vec::new() }
    }
    fn with(mut self, children: Vec<Node>) -> Self {
        self.children = children;
        self
    }
    /// The tree with box characters, one line a node, each ended with LF.
    pub fn draw(&self) -> String {
        let mut out = format!("{}\n", self.label);
        self.draw_children("", &mut out);
        out
    }
    fn draw_children(&self, indent: &str, out: &mut String) {
        let last = self.children.len().saturating_sub(1);
        for (index, child) in self.children.iter().enumerate() {
            let (branch, below) = if index == last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            out.push_str(indent);
            out.push_str(branch);
            out.push_str(&child.label);
            out.push('\n');
            child.draw_children(&format!("{indent}{below}"), out);
        }
    }
}

/// What was found in a message: layers outermost first, then the parts of the innermost content.
pub fn of_opened(opened: &Opened, limits: &MimeLimits) -> Node {
    let shut = opened.verdict.layers.last().is_some_and(|layer| match layer {
        Layer::Encrypted { outcome, .. } | Layer::Compressed { outcome } => outcome.is_err(),
        Layer::Signed { .. } => false,
    });
    let mut inner = if shut {
        None
    } else {
        Entity::parse(opened.content.clone(), limits)
            .ok()
            .filter(|entity| !entity.header.fields.is_empty())
            .map(|entity| parts(&entity, limits, limits.depth.min(32), &mut PARTS.clone()))
            .or_else(|| Some(Node::new(format!("{} octets, no MIME entity", opened.content.len()))))
    };
    for layer in opened.verdict.layers.iter().rev() {
        let mut node = layer_node(layer);
        node.children.extend(inner.take());
        inner = Some(node);
    }
    let mut root = Node::new(format!("message, {} octets", opened.message.len()));
    root.children.extend(inner);
    if !opened.verdict.weak.is_empty() {
        root.children.push(Node::new(format!("weak, read by the legacy switches: {}", opened.verdict.weak.join(", "))));
    }
    for note in &opened.verdict.notes {
        root.children.push(Node::new(format!("note: {note}")));
    }
    root
}

fn layer_node(layer: &Layer) -> Node {
    match layer {
        Layer::Encrypted { cipher, authenticated, recipients, outcome } => {
            let how = if *authenticated { "authenticated" } else { "not authenticated" };
            let state = match outcome {
                Ok(()) => "opened".to_owned(),
                Err(why) => format!("not opened: {why}"),
            };
            Node::new(format!("encrypted, {cipher} ({how}), {state}"))
                .with(recipients.iter().map(|recipient| Node::new(format!("for: {recipient}"))).collect())
        }
        Layer::Signed { clear, signers } => {
            let form = if *clear { "clear" } else { "opaque" };
            let count = if signers.is_empty() { ", no signer" } else { "" };
            Node::new(format!("signed, {form}{count}")).with(signers.iter().map(signer_node).collect())
        }
        Layer::Compressed { outcome } => Node::new(match outcome {
            Ok(()) => "compressed".to_owned(),
            Err(why) => format!("compressed, {why}"),
        }),
    }
}

fn signer_node(signer: &SignerReport) -> Node {
    let who = signer.certificate.as_ref().map_or_else(|| "unknown".to_owned(), |one| one.subject_text());
    let mut lines = vec![format!("algorithm: {}", signer.algorithm)];
    if let Some(time) = signer.signing_time {
        lines.push(format!("signing time: {time}"));
    }
    lines.extend(signer.capabilities.as_ref().map(|known| format!("reads: {}", known.names().join(", "))));
    lines.extend(signer.prefers.as_ref().map(|one| format!("to be encrypted to: {one}")));
    lines.push(said("signature", signer.signature.as_ref().map(|()| "good".to_owned())));
    lines.push(said(
        "path",
        signer.path.as_ref().map(|path| match path.chain().last() {
            Some(anchor) => format!("valid, {} certificates, to {}", path.chain().len(), anchor.subject_text()),
            None => "valid".to_owned(),
        }),
    ));
    lines.extend(signer.revocation.as_ref().map(|status| format!("revocation: {status}")));
    lines.push(said("From", signer.matches_from.as_ref().map(|mailbox| format!("is the signer's: {mailbox}"))));
    lines.extend(signer.weak.iter().map(|weak| format!("weak: {weak}")));
    lines.extend(signer.countersigned.iter().map(|by| format!("countersigned by: {by}")));
    Node::new(format!("signer: {who}")).with(lines.iter().map(Node::new).collect())
}

fn said(what: &str, result: Result<String, &String>) -> String {
    match result {
        Ok(good) => format!("{what}: {good}"),
        Err(why) => format!("{what}: no: {why}"),
    }
}

/// The parts of an entity, `depth` levels at most.
fn parts(entity: &Entity, limits: &MimeLimits, depth: usize, left: &mut usize) -> Node {
    *left = left.saturating_sub(1);
    let content_type = match entity.content_type() {
        Ok(content_type) => content_type,
        Err(error) => return Node::new(format!("a part that cannot be read: {error}")),
    };
    let mut node = Node::new(part_label(entity, &content_type));
    if depth == 0 || *left == 0 {
        return node;
    }
    if content_type.essence.starts_with("multipart/") {
        match entity.parts(limits) {
            Ok(found) => {
                for part in &found {
                    if *left == 0 {
                        node.children.push(Node::new("further parts, not drawn"));
                        break;
                    }
                    node.children.push(parts(part, limits, depth.saturating_sub(1), left));
                }
            }
            Err(error) => node.children.push(Node::new(format!("parts that cannot be read: {error}"))),
        }
    } else if content_type.essence == "message/rfc822"
        && let Ok(message) = entity.decoded_body().and_then(|body| Entity::parse(body, limits))
    {
        node.children.push(parts(&message, limits, depth.saturating_sub(1), left));
    }
    node
}

fn part_label(entity: &Entity, content_type: &ContentType) -> String {
    let mut label = content_type.essence.clone();
    if let Some(charset) = content_type.parameter("charset") {
        label.push_str(&format!(", {charset}"));
    }
    if let Ok(Some(encoding)) = entity.header.one("Content-Transfer-Encoding") {
        label.push_str(&format!(", {}", encoding.value().to_ascii_lowercase()));
    }
    if let Some(name) = content_type.parameter("name") {
        label.push_str(&format!(", {name:?}"));
    }
    label.push_str(&format!(", {} octets", entity.body.len()));
    label
}

fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|one| if one.is_control() { one.escape_default().collect::<Vec<char>>() } else { vec![one] })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_branches_and_escapes_control_characters() {
        let tree = Node::new("a")
            .with(vec![Node::new("b").with(vec![Node::new("c\x1b[31m")]), Node::new("d").with(vec![Node::new("e")])]);
        assert_eq!(tree.draw(), "a\n├─ b\n│  └─ c\\u{1b}[31m\n└─ d\n   └─ e\n");
    }
}
