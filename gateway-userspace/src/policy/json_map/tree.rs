//! JSON as far as it is taken apart: what nobody looks into stays the text that it was. The text is known to be JSON.

use std::borrow::Cow;

use crate::policy::json::Refused;

#[derive(Debug, Clone)]
pub enum Node<'a> {
    Raw(Cow<'a, str>),
    /// Names as they are written, in their quotes.
    Object(Vec<(Cow<'a, str>, Node<'a>)>),
    Array(Vec<Node<'a>>),
}

type Members<'a> = Vec<(Cow<'a, str>, Node<'a>)>;

impl<'a> Node<'a> {
    pub fn raw(text: &'a str) -> Self {
        Node::Raw(Cow::Borrowed(trimmed(text)))
    }

    /// Takes an object or an array apart, one level deep.
    fn open(&mut self) {
        let opened = match self {
            Node::Raw(Cow::Borrowed(text)) => opened(text),
            // What the config says, which is short.
            Node::Raw(Cow::Owned(text)) => opened(text).map(Node::owned),
            Node::Object(_) | Node::Array(_) => None,
        };
        if let Some(opened) = opened {
            *self = opened;
        }
    }

    fn owned(self) -> Node<'static> {
        let text = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        match self {
            Node::Raw(raw) => Node::Raw(text(raw)),
            Node::Object(members) => {
                Node::Object(members.into_iter().map(|(name, node)| (text(name), node.owned())).collect())
            }
            Node::Array(items) => Node::Array(items.into_iter().map(Node::owned).collect()),
        }
    }

    /// What one part of a pointer leads to.
    fn child(&mut self, piece: &str) -> Result<Option<&mut Node<'a>>, Refused> {
        self.open();
        Ok(match self {
            Node::Object(members) => {
                let at = position(members, piece)?;
                at.and_then(|at| members.get_mut(at)).map(|(_, node)| node)
            }
            Node::Array(items) => index(piece).and_then(|at| items.get_mut(at)),
            Node::Raw(_) => None,
        })
    }

    /// All that a pointer leads to.
    pub fn each(
        &mut self,
        pointer: &[String],
        act: &mut dyn FnMut(&mut Node<'a>) -> Result<(), Refused>,
    ) -> Result<(), Refused> {
        let Some((first, rest)) = pointer.split_first() else { return act(self) };
        if first != "*" {
            return self.child(first)?.map_or(Ok(()), |child| child.each(rest, act));
        }
        self.open();
        match self {
            Node::Object(members) => members.iter_mut().try_for_each(|(_, node)| node.each(rest, act)),
            Node::Array(items) => items.iter_mut().try_for_each(|node| node.each(rest, act)),
            Node::Raw(_) => Ok(()),
        }
    }

    pub fn remove(&mut self, pointer: &[String]) -> Result<(), Refused> {
        let Some((last, to)) = pointer.split_last() else { return Ok(()) };
        self.each(to, &mut |node| match last.as_str() {
            "*" => {
                node.clear();
                Ok(())
            }
            last => node.take(last).map(drop),
        })
    }

    fn clear(&mut self) {
        self.open();
        match self {
            Node::Object(members) => members.clear(),
            Node::Array(items) => items.clear(),
            Node::Raw(_) => {}
        }
    }

    /// Takes a member or an element out.
    fn take(&mut self, piece: &str) -> Result<Option<Node<'a>>, Refused> {
        self.open();
        Ok(match self {
            Node::Object(members) => position(members, piece)?.map(|at| members.remove(at).1),
            Node::Array(items) => index(piece).filter(|at| *at < items.len()).map(|at| items.remove(at)),
            Node::Raw(_) => None,
        })
    }

    /// Moves what `from` leads to, if anything, to `to`. Where it cannot be there it stays.
    pub fn rename(&mut self, from: &[String], to: &[String]) -> Result<(), Refused> {
        let (Some((from_last, from_path)), Some((to_last, to_path))) = (from.split_last(), to.split_last())
        else {
            return Ok(());
        };
        if from_path == to_path {
            return self.each(from_path, &mut |node| node.rename_member(from_last, to_last));
        }
        let mut moved = None;
        self.each(from_path, &mut |node| {
            moved = node.take(from_last)?;
            Ok(())
        })?;
        let Some(moved) = moved else { return Ok(()) };
        match self.put(to, moved)? {
            None => Ok(()),
            Some(back) => self.put(from, back).map(drop),
        }
    }

    /// In its place.
    fn rename_member(&mut self, from: &str, to: &str) -> Result<(), Refused> {
        self.open();
        let Node::Object(members) = self else { return Ok(()) };
        if from == to || position(members, from)?.is_none() {
            return Ok(());
        }
        if let Some(there) = position(members, to)? {
            members.remove(there);
        }
        let at = position(members, from)?;
        if let Some((name, _)) = at.and_then(|at| members.get_mut(at)) {
            *name = Cow::Owned(super::quoted(to));
        }
        Ok(())
    }

    /// Puts a value where a pointer leads to, with the objects on the way to it. It comes back where something else is in
    /// the way.
    fn put(&mut self, pointer: &[String], value: Node<'a>) -> Result<Option<Node<'a>>, Refused> {
        let Some((first, rest)) = pointer.split_first() else {
            *self = value;
            return Ok(None);
        };
        if let Some(child) = self.child(first)? {
            return child.put(rest, value);
        }
        match self {
            Node::Object(members) => {
                let name = Cow::Owned(super::quoted(first));
                members.push((name, within(rest, value)));
                Ok(None)
            }
            Node::Array(items) if first == "-" => {
                items.push(within(rest, value));
                Ok(None)
            }
            Node::Array(_) | Node::Raw(_) => Ok(Some(value)),
        }
    }

    /// As [`Self::put`]; behind a `*` in whatever is there.
    pub fn set(&mut self, pointer: &[String], json: &str) -> Result<(), Refused> {
        let (of, to) = pointer.split_at(super::shared(pointer));
        self.each(of, &mut |node| node.put(to, Node::Raw(Cow::Owned(json.to_owned()))).map(drop))
    }

    pub fn write(&self, out: &mut String) {
        match self {
            Node::Raw(text) => out.push_str(text),
            Node::Object(members) => {
                out.push('{');
                for (at, (name, node)) in members.iter().enumerate() {
                    out.push_str(if at == 0 { "" } else { "," });
                    out.push_str(name);
                    out.push(':');
                    node.write(out);
                }
                out.push('}');
            }
            Node::Array(items) => {
                out.push('[');
                for (at, node) in items.iter().enumerate() {
                    out.push_str(if at == 0 { "" } else { "," });
                    node.write(out);
                }
                out.push(']');
            }
        }
    }
}

/// Objects around a value, or an array that it is the first element of.
fn within<'a>(path: &[String], value: Node<'a>) -> Node<'a> {
    path.iter().rev().fold(value, |inner, name| match name.as_str() {
        "-" => Node::Array(vec![inner]),
        name => Node::Object(vec![(Cow::Owned(super::quoted(name)), inner)]),
    })
}

/// Of the one member of that name.
fn position(members: &Members<'_>, wanted: &str) -> Result<Option<usize>, Refused> {
    let mut found = members.iter().enumerate().filter(|(_, (name, _))| is_called(name, wanted));
    let first = found.next().map(|(at, _)| at);
    if found.next().is_some() { Err(Refused) } else { Ok(first) }
}

fn is_called(written: &str, wanted: &str) -> bool {
    if !written.contains('\\') {
        return written.get(1..written.len() - 1) == Some(wanted);
    }
    serde_json::from_str::<String>(written).is_ok_and(|name| name == wanted)
}

/// RFC 6901 section 4.
fn index(piece: &str) -> Option<usize> {
    let plain = piece == "0" || piece.bytes().all(|byte| byte.is_ascii_digit()) && !piece.starts_with('0');
    plain.then(|| piece.parse().ok()).flatten()
}

fn opened(text: &str) -> Option<Node<'_>> {
    let inside = trimmed(text.get(1..)?);
    match text.as_bytes().first()? {
        b'{' => members(inside).map(Node::Object),
        b'[' => items(inside).map(Node::Array),
        _ => None,
    }
}

fn members(mut text: &str) -> Option<Members<'_>> {
    let mut members = Vec::new();
    while !text.starts_with('}') {
        let (name, rest) = value(text)?;
        let (node, rest) = value(trimmed(rest.strip_prefix(':')?))?;
        members.push((Cow::Borrowed(name), Node::raw(node)));
        text = trimmed(rest.strip_prefix(',').unwrap_or(rest));
    }
    Some(members)
}

fn items(mut text: &str) -> Option<Vec<Node<'_>>> {
    let mut items = Vec::new();
    while !text.starts_with(']') {
        let (node, rest) = value(text)?;
        items.push(Node::raw(node));
        text = trimmed(rest.strip_prefix(',').unwrap_or(rest));
    }
    Some(items)
}

/// The value that a text begins with, and what follows it.
fn value(text: &str) -> Option<(&str, &str)> {
    let bytes = text.as_bytes();
    let mut depth = 0_usize;
    let mut at = 0;
    loop {
        match bytes.get(at)? {
            b'"' => at += string(bytes.get(at..)?)?,
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' => {
                depth = depth.checked_sub(1)?;
                at += 1;
            }
            b',' | b':' | b' ' | b'\t' | b'\n' | b'\r' => at += 1,
            _ => {
                let ends = |byte: &u8| b",:]} \t\r\n".contains(byte);
                let rest = bytes.get(at..)?;
                at += rest.iter().position(ends).unwrap_or(rest.len());
            }
        }
        if depth == 0 {
            return Some((text.get(..at)?, trimmed(text.get(at..)?)));
        }
    }
}

/// The length of the string that bytes begin with.
fn string(bytes: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Without the white space of JSON.
fn trimmed(text: &str) -> &str {
    text.trim_matches([' ', '\t', '\n', '\r'])
}
