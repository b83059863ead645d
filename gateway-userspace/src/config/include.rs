//! `include = ["conf.d/*.toml"]`: the files it names, and merging them by name.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    error::{Problem, ProblemKind, Problems},
    node::{Fields, Node, Value},
    read::read_root,
    source::{Source, unreadable},
    units::Place,
};

/// The config with everything that it includes, and the files that were read.
pub(crate) fn follow(mut root: Fields, main: &Path, problems: &mut Problems) -> (Fields, Vec<PathBuf>) {
    let mut files = vec![absolute(main)];
    let Some(Node { value: Value::List(patterns), .. }) = root.map.remove("include") else {
        return (root, files);
    };
    for Node { at, value } in patterns {
        let Value::Text(pattern) = value else { continue };
        for file in matching(&pattern, &at, problems) {
            if files.contains(&absolute(&file)) {
                continue;
            }
            files.push(absolute(&file));
            let source = Source::read(&file, problems);
            match source.and_then(|source| read_root(&source, problems)) {
                Some(included) => merge(&mut root, included, problems),
                None => root.broken = true,
            }
        }
    }
    (root, files)
}

fn merge(root: &mut Fields, included: Fields, problems: &mut Problems) {
    root.broken |= included.broken;
    for (key, node) in included.map {
        if key == "include" {
            let hint = "name all files in the first one".to_owned();
            let message = "an included file cannot include others";
            problems.push(Problem::new(ProblemKind::Conflict, &node.at, message).hint(hint));
            continue;
        }
        match (root.map.get_mut(key), node) {
            (None, node) => {
                root.map.insert(key, node);
            }
            (Some(Node { value: Value::Named(here), .. }), Node { value: Value::Named(more), .. }) => {
                for (name, fields) in more {
                    match here.get(&name) {
                        Some(first) => twice(&format!("{key}.{name}"), &fields.at, &first.at, problems),
                        None => {
                            here.insert(name, fields);
                        }
                    }
                }
            }
            (Some(first), node) => twice(key, &node.at, &first.at, problems),
        }
    }
}

fn twice(path: &str, second: &Place, first: &Place, problems: &mut Problems) {
    let message = format!("`{path}` is defined twice, first at {first}");
    let hint = "files are merged by name: rename one of them, or put both in one table".to_owned();
    problems.push(Problem::new(ProblemKind::Duplicate, second, message).hint(hint));
}

/// The files that a pattern names, sorted; relative to the file it stands in.
fn matching(pattern: &str, at: &Place, problems: &mut Problems) -> Vec<PathBuf> {
    let path = beside(at, pattern);
    let last = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    let folder = path.parent().unwrap_or(Path::new(""));
    if folder.to_string_lossy().contains('*') {
        let message = "`include`: `*` is only supported in the last part of a path";
        problems.push(Problem::new(ProblemKind::NotSupported, at, message));
        return Vec::new();
    }
    if !last.contains('*') {
        if !path.exists() {
            let message = format!("`include`: there is no file {}", path.display());
            problems.push(Problem::new(ProblemKind::File, at, message));
            return Vec::new();
        }
        return vec![path];
    }
    match list(folder, &last) {
        Ok(files) => files,
        // An empty conf.d may just as well not be there.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            problems.push(unreadable(folder, &error));
            Vec::new()
        }
    }
}

fn list(folder: &Path, pattern: &str) -> io::Result<Vec<PathBuf>> {
    let look_in = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let mut files = Vec::new();
    for entry in fs::read_dir(look_in)? {
        let name = entry?.file_name();
        // As in a shell, hidden files (an editor's, a ConfigMap's) are not meant by `*`.
        let matches = name.to_str().is_some_and(|name| !name.starts_with('.') && glob(pattern, name));
        let path = folder.join(&name);
        if matches && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// `*` stands for any text. Greedy with one step back, which is enough for `*` alone, and linear in practice.
fn glob(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(found) = rest.find(part) else { return false };
        rest = &rest[found + part.len()..];
    }
    true
}

/// A path as written in a config file, relative to that.
pub(crate) fn beside(at: &Place, path: impl AsRef<Path>) -> PathBuf {
    at.file.parent().unwrap_or(Path::new("")).join(path)
}

/// As the program sees it, wherever its working directory is later.
pub(crate) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::glob;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, name) in
            [("*.toml", "a.toml"), ("*", ""), ("a*c", "abbc"), ("*a*b*", "xxaxxbxx"), ("a*", "a")]
        {
            assert!(glob(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("*.toml", "a.tom"), ("a*a", "a"), ("a", "ab"), ("*a*b", "ba"), ("a*b*c", "acb")]
        {
            assert!(!glob(pattern, name), "{pattern} {name}");
        }
    }
}
