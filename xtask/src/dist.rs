//! What is given to others: a release build that anybody can make again bit by bit, and the list of what is in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::build::{cargo, printed, run, workspace};

const PACKAGE: &str = "gateway-userspace";
const BINARY: &str = "gateway";

/// Builds, lists what is in it, and (`check`) builds again in another directory to see whether the same comes out.
pub fn dist(check: bool) -> Result<()> {
    let dist = workspace().join("target/dist");
    fs::create_dir_all(&dist)?;
    let first = built(&workspace(), &dist.join("one"))?;
    let binary = dist.join(BINARY);
    fs::copy(&first, &binary)?;
    sbom(&dist.join("gateway.cdx.json"))?;
    if check {
        let copy = dist.join("elsewhere/of/another/length");
        let _ = fs::remove_dir_all(&copy);
        fs::create_dir_all(&copy)?;
        // What is committed, as whoever checks has it.
        let archive = dist.join("source.tar");
        run(Command::new("git")
            .current_dir(workspace())
            .args(["archive", "--output"])
            .arg(&archive)
            .arg("HEAD"))?;
        run(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&copy))?;
        let second = built(&copy, &copy.join("target"))?;
        let same = fs::read(&binary)? == fs::read(&second)?;
        ensure!(same, "not the same: {} and {}", binary.display(), second.display());
        fs::remove_dir_all(dist.join("elsewhere"))?;
        println!("the same in another directory");
    }
    println!("{}\n{}", binary.display(), dist.join("gateway.cdx.json").display());
    Ok(())
}

/// A release build of which no path of this machine, and no time, is part.
fn built(source: &Path, target: &Path) -> Result<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let sysroot = printed(Command::new("rustc").args(["--print", "sysroot"])).context("no rustc")?;
    // The last that fits counts: what lies within another goes behind it.
    let mut places = vec![(source.to_owned(), "/gateway"), (target.to_owned(), "/target")];
    places.extend(home.map(|home| (home, "/cargo")));
    places.push((PathBuf::from(sysroot.trim()).join("lib/rustlib/src/rust"), "/rust"));
    let mapped = |flag: &str| {
        let one = |(from, to): &(PathBuf, &str)| format!("{flag}={}={to}", from.display());
        places.iter().map(one).collect::<Vec<_>>().join(" ")
    };
    let time = printed(Command::new("git").current_dir(workspace()).args(["log", "-1", "--format=%ct"]));
    // The linker that `cargo xtask setup` has put beside the checkout's own builds.
    let tools = std::iter::once(workspace().join("target/bpf-tools/bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(tools.chain(std::env::split_paths(&path)))?;
    let mut build = cargo();
    build.current_dir(source).args(["build", "--release", "--locked", "--package", PACKAGE]);
    build
        .env("PATH", path)
        .env("CARGO_TARGET_DIR", target)
        .env("CARGO_INCREMENTAL", "0")
        .env("RUSTFLAGS", mapped("--remap-path-prefix"))
        // C has paths in assertions and debug information.
        .env("CFLAGS", mapped("-ffile-prefix-map"))
        .env("CXXFLAGS", mapped("-ffile-prefix-map"))
        .env("GATEWAY_BPF_REMAP", mapped("--remap-path-prefix"))
        .env("SOURCE_DATE_EPOCH", time.as_deref().unwrap_or("0").trim())
        .env("ZERO_AR_DATE", "1");
    run(&mut build)?;
    Ok(target.join("release").join(BINARY))
}

/// A crate of the lock file.
#[derive(Debug, Default)]
struct Locked {
    checksum: Option<String>,
    /// Names, and versions where there are several.
    dependencies: Vec<String>,
}

type Id = (String, String);

/// Writes a CycloneDX 1.5 list of all crates that are part of the binary, with licences, checksums and who needs whom.
pub fn sbom(to: &Path) -> Result<()> {
    let locked = locked(&fs::read_to_string(workspace().join("Cargo.lock"))?);
    let mut tree = cargo();
    tree.args(["tree", "--locked", "--package", PACKAGE, "--edges", "normal", "--prefix", "none"]);
    let tree = printed(tree.args(["--format", "{p}|{l}"])).context("cargo tree does not work")?;
    let crates: BTreeMap<Id, String> = tree.lines().filter_map(of_tree).collect();
    ensure!(crates.len() > 50, "only {} crates: {tree}", crates.len());
    let (own, version) = crates
        .keys()
        .find(|(name, _)| name == PACKAGE)
        .cloned()
        .context("the gateway is not in its own tree")?;
    let mut out =
        String::from("{\n  \"bomFormat\": \"CycloneDX\",\n  \"specVersion\": \"1.5\",\n  \"version\": 1,\n");
    writeln!(
        out,
        "  \"metadata\": {{ \"component\": {{ \"type\": \"application\", \"bom-ref\": {}, \"name\": \"gateway\", \"version\": {} }} }},",
        quoted(&purl(&own, &version)),
        quoted(&version)
    )?;
    let components = crates.iter().filter(|((name, _), _)| *name != own);
    let components: Vec<String> =
        components.map(|(id, licence)| component(id, licence, locked.get(id))).collect();
    writeln!(out, "  \"components\": [\n{}\n  ],", components.join(",\n"))?;
    let edges: Vec<String> = crates.keys().map(|id| edge(id, &locked, &crates)).collect();
    writeln!(out, "  \"dependencies\": [\n{}\n  ]\n}}", edges.join(",\n"))?;
    fs::write(to, out).with_context(|| format!("cannot write {}", to.display()))
}

/// "serde v1.0.0 (proc-macro)|MIT OR Apache-2.0"
fn of_tree(line: &str) -> Option<(Id, String)> {
    let (package, licence) = line.split_once('|')?;
    let mut words = package.split(' ');
    let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
    Some(((name.to_owned(), version.to_owned()), licence.trim_end_matches("(*)").trim().to_owned()))
}

/// Cargo.lock, which cargo writes a line a thing.
fn locked(text: &str) -> BTreeMap<Id, Locked> {
    let mut all = BTreeMap::new();
    for block in text.split("[[package]]").skip(1) {
        let value = |key: &str| {
            let line = block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
            line.map(|value| value.trim_matches('"').to_owned())
        };
        let (Some(name), Some(version)) = (value("name"), value("version")) else { continue };
        let listed = block.split_once("dependencies = [").map_or("", |(_, rest)| rest);
        let listed = listed.split(']').next().unwrap_or_default();
        let dependencies = listed.split('"').skip(1).step_by(2).map(str::to_owned).collect();
        all.insert((name, version), Locked { checksum: value("checksum"), dependencies });
    }
    all
}

fn component((name, version): &Id, licence: &str, locked: Option<&Locked>) -> String {
    let purl = quoted(&purl(name, version));
    let mut fields = vec![
        "\"type\": \"library\"".to_owned(),
        format!("\"bom-ref\": {purl}"),
        format!("\"name\": {}", quoted(name)),
        format!("\"version\": {}", quoted(version)),
        format!("\"purl\": {purl}"),
    ];
    if !licence.is_empty() {
        // Slashes are how it was written before there were expressions (SPDX).
        let expression = quoted(&licence.replace('/', " OR "));
        fields.push(format!("\"licenses\": [{{ \"expression\": {expression} }}]"));
    }
    if let Some(sum) = locked.and_then(|locked| locked.checksum.as_deref()) {
        fields.push(format!("\"hashes\": [{{ \"alg\": \"SHA-256\", \"content\": {} }}]", quoted(sum)));
    }
    format!("    {{ {} }}", fields.join(", "))
}

fn edge(id: &Id, locked: &BTreeMap<Id, Locked>, crates: &BTreeMap<Id, String>) -> String {
    let named = |dependency: &String| {
        let (name, version) = dependency.split_once(' ').unwrap_or((dependency, ""));
        let found = crates.keys().find(|(one, of)| one == name && (version.is_empty() || of == version));
        found.map(|(name, version)| quoted(&purl(name, version)))
    };
    let on: BTreeSet<String> =
        locked.get(id).into_iter().flat_map(|locked| &locked.dependencies).filter_map(named).collect();
    let on = on.into_iter().collect::<Vec<_>>().join(", ");
    format!("    {{ \"ref\": {}, \"dependsOn\": [{on}] }}", quoted(&purl(&id.0, &id.1)))
}

fn purl(name: &str, version: &str) -> String {
    format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"))
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_and_trees_are_read() {
        let lock = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nchecksum = \"ab\"\ndependencies = [\n \"b\",\n \"c 2.0.0\",\n]\n\n[[package]]\nname = \"b\"\nversion = \"0.1.0\"\n";
        let all = locked(lock);
        let a = &all[&("a".to_owned(), "1.0.0".to_owned())];
        assert_eq!(
            (a.checksum.as_deref(), &a.dependencies[..]),
            (Some("ab"), &["b".to_owned(), "c 2.0.0".to_owned()][..])
        );
        assert!(all[&("b".to_owned(), "0.1.0".to_owned())].dependencies.is_empty());
        let (id, licence) = of_tree("serde_derive v1.0.1 (proc-macro)|MIT OR Apache-2.0 (*)").unwrap();
        assert_eq!(
            (id.0.as_str(), id.1.as_str(), licence.as_str()),
            ("serde_derive", "1.0.1", "MIT OR Apache-2.0")
        );
        assert_eq!(purl("a", "1.0.0+b"), "pkg:cargo/a@1.0.0%2Bb");
    }
}
