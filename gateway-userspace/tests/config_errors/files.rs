//! Problems across files, and of files.

use std::fs;

use gateway::config::{self, ProblemKind};

/// Loads gateway.toml of these files; the problems, with the folder's name left out.
fn load(files: &[(&str, &[u8])]) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("inside")).expect("made");
        fs::write(path, text).expect("written");
    }
    let errors = config::load(&folder.path().join("gateway.toml")).expect_err("it is wrong");
    errors.to_string().replace(&format!("{}/", folder.path().display()), "")
}

#[test]
fn a_name_in_two_files_shows_both_places() {
    let main = b"include = \"*.toml\"\n[listener.web]\nbind = \":80\"\n[gateway]\n[route.a]\nto = [\"10.0.0.1:1\"]\n";
    let more = b"[listener.web]\nbind = \":81\"\n[gateway]\n";
    assert_eq!(
        load(&[("gateway.toml", main), ("more.toml", more)]),
        "more.toml:1:11: `listener.web` is defined twice, first at gateway.toml:2:11\n  \
         hint: files are merged by name: rename one of them, or put both in one table\n\
         more.toml:3:2: `gateway` is defined twice, first at gateway.toml:4:2\n  \
         hint: files are merged by name: rename one of them, or put both in one table"
    );
}

#[test]
fn problems_of_all_files_are_told() {
    let main = b"include = [\"conf.d/*.toml\", \"no.toml\", \"*/x.toml\", \"x.yaml\"]\n[kernel.block]\nfiles = [\"bad.txt\", \"none.txt\"]\n";
    assert_eq!(
        load(&[
            ("gateway.toml", main),
            ("conf.d/a.toml", b"include = \"b.toml\"\n[route.a]\nto = \"b\"\n"),
            ("conf.d/b.toml", b"[upstream.c]\nto = 5\n"),
            ("conf.d/c.toml", b"not toml"),
            ("conf.d/d.toml", b"[listener.x]\nbind = \":80\"\xff\n"),
            ("bad.txt", b"10.0.0.0/8\n\n # comment\n10.1.2.3/8 # host bits\n  what\n"),
            ("x.yaml", b"rout:\n  a: {}\n"),
        ]),
        "bad.txt:4:1: 10.1.2.3/8 has host bits set\n  \
         hint: write \"10.0.0.0/8\", or \"10.1.2.3\" for the one address\n\
         bad.txt:5:3: expected a prefix such as \"10.0.0.0/8\", found \"what\"\n\
         conf.d/a.toml:1:11: an included file cannot include others\n  \
         hint: name all files in the first one\n\
         conf.d/a.toml:3:6: upstream \"b\" is not defined\n  \
         hint: defined: \"c\"\n\
         conf.d/b.toml:2:6: `upstream.c.to`: expected a target such as \"10.0.0.1:8080\" or a table { addr, weight, zone, backup, priority, max }, found 5\n\
         conf.d/c.toml:1:5: not TOML: key with no value, expected `=`\n\
         conf.d/d.toml:2:13: the file is not UTF-8 text\n\
         gateway.toml:1:29: `include`: there is no file no.toml\n\
         gateway.toml:1:40: `include`: `*` is only supported in the last part of a path\n\
         none.txt: cannot read the file: there is no such file\n\
         x.yaml:1:1: unknown key `rout`\n  \
         hint: did you mean `route`?"
    );
}

#[test]
fn what_cannot_be_read_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let load = |name: &str| {
        let errors = config::load(&folder.path().join(name)).expect_err("it is wrong");
        (errors.to_string().replace(&format!("{}/", folder.path().display()), ""), errors.problems[0].kind)
    };
    let missing = ("no.toml: cannot read the file: there is no such file".to_owned(), ProblemKind::File);
    assert_eq!(load("no.toml"), missing);
    assert!(load(".").0.contains("it is not a regular file"));
}
