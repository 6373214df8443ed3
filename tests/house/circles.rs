//! The graph of imports between files, and its circles.
//!
//! A file imports another one where its code names a path (`crate::`, `super::`, `self::` or a child module) that ends
//! in the other file. A re-export is followed to the file that defines the item, so a `mod.rs` that only declares and
//! re-exports its children imports nothing and is never part of a circle. A parent imports its own child only where its
//! code names the child as a path (`child::work()`), not by a `use`. Code of tests does not count.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The path of a module below the crate: `["proxy", "session"]`.
type Module = Vec<String>;

/// The files of a source tree, by module.
pub struct Tree {
    files: BTreeMap<Module, File>,
}

struct File {
    code: String,
    /// What `use` brings into the module: name, and the path as it is written.
    names: BTreeMap<String, Vec<String>>,
}

impl Tree {
    /// Reads files given as path below `src` and text. `lib.rs`, `main.rs` and files of tests are left out.
    pub fn of<'a>(files: impl Iterator<Item = (&'a Path, &'a str)>) -> Tree {
        let module = |path: &Path| -> Option<Module> {
            let mut parts: Vec<_> =
                path.with_extension("").iter().map(|part| part.to_str().unwrap().to_owned()).collect();
            if parts.iter().any(|part| part == "tests") || parts == ["lib"] || parts == ["main"] {
                return None;
            }
            if parts.last()? == "mod" {
                parts.pop();
            }
            Some(parts)
        };
        let files = files.filter_map(|(path, text)| Some((module(path)?, File::of(text)))).collect();
        Tree { files }
    }

    /// The file that defines what `path` names, as seen from `from`.
    fn definition(&self, from: &Module, path: &[String], depth: u32) -> Option<Module> {
        let mut segments = path.iter();
        let first = segments.next()?;
        let mut module = match first.as_str() {
            "crate" => Vec::new(),
            "self" => from.clone(),
            "super" => from[..from.len() - 1].to_vec(),
            _ => {
                let child: Module = from.iter().chain([first]).cloned().collect();
                self.files.contains_key(&child).then_some(child)?
            }
        };
        for (position, segment) in segments.enumerate() {
            if segment == "super" {
                module.pop();
                continue;
            }
            let child: Module = module.iter().chain([segment]).cloned().collect();
            if self.files.contains_key(&child) {
                module = child;
                continue;
            }
            let reexport = self.files.get(&module).and_then(|file| file.names.get(segment));
            if let Some(reexport) = reexport.filter(|_| depth > 0) {
                let rest = &path[position + 2..];
                let longer: Vec<_> = reexport.iter().chain(rest).cloned().collect();
                // What is no path of this crate comes from another one, and belongs to no file.
                return self.definition(&module, &longer, depth - 1);
            }
            break;
        }
        self.files.contains_key(&module).then_some(module)
    }

    /// The files that `module` imports.
    fn imports(&self, module: &Module) -> BTreeSet<Module> {
        let file = &self.files[module];
        let paths = paths(&file.code).into_iter().chain(file.names.values().cloned());
        paths
            .filter_map(|path| self.definition(module, &path, 8))
            .filter(|target| target != module)
            // A re-export of a child is how a parent shows it, not a use of it.
            .filter(|target| !target.starts_with(module) || uses(&file.code, &target[module.len()..]))
            .collect()
    }

    /// The circles: groups of files of which each reaches each.
    pub fn circles(&self) -> Vec<Vec<String>> {
        let edges: BTreeMap<_, _> = self.files.keys().map(|module| (module, self.imports(module))).collect();
        let reached = |start: &Module| {
            let mut reached = BTreeSet::new();
            let mut next = vec![start];
            while let Some(module) = next.pop() {
                for target in &edges[module] {
                    if reached.insert(target) {
                        next.push(target);
                    }
                }
            }
            reached
        };
        let reached: BTreeMap<_, _> = edges.keys().map(|&module| (module, reached(module))).collect();
        let mut circles = BTreeSet::new();
        for (module, targets) in &reached {
            if targets.contains(*module) {
                let both = targets.iter().filter(|target| reached[**target].contains(*module));
                circles.insert(both.map(|module| module.join("/")).collect::<Vec<_>>());
            }
        }
        circles.into_iter().collect()
    }
}

impl File {
    fn of(text: &str) -> File {
        let end = text.find("#[cfg(test)]\nmod tests").unwrap_or(text.len());
        let lines = text[..end].lines().filter(|line| !line.trim_start().starts_with("//"));
        let code: String = lines.flat_map(|line| [line.split(" // ").next().unwrap(), "\n"]).collect();
        let (mut names, mut rest) = (BTreeMap::new(), String::new());
        let mut statement: Option<String> = None;
        for line in code.lines() {
            let trimmed = line.trim_start();
            let visible = trimmed.strip_prefix("pub").map_or(trimmed, |line| {
                line.strip_prefix('(').and_then(|line| line.split_once(')')).map_or(line, |(_, line)| line)
            });
            if statement.is_none() && visible.trim_start().starts_with("use ") && line == trimmed {
                statement = Some(String::new());
            }
            match &mut statement {
                Some(text) => {
                    text.push_str(visible);
                    if text.ends_with(';') {
                        let tree = text.trim_start().trim_start_matches("use ").trim_end_matches(';');
                        flatten(tree, &[], &mut names);
                        statement = None;
                    }
                }
                None => {
                    rest.push_str(line);
                    rest.push('\n');
                }
            }
        }
        File { code: rest, names }
    }
}

/// Adds each name of a `use` tree and its path.
fn flatten(tree: &str, prefix: &[String], names: &mut BTreeMap<String, Vec<String>>) {
    let tree = tree.trim();
    if let Some((before, group)) = tree.split_once('{') {
        let mut prefix = prefix.to_vec();
        prefix.extend(before.split("::").map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned));
        let group = &group[..group.rfind('}').expect("a group is closed")];
        let (mut depth, mut start) = (0, 0);
        for (position, character) in group.char_indices().chain([(group.len(), ',')]) {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    flatten(&group[start..position], &prefix, names);
                    start = position + 1;
                }
                _ => {}
            }
        }
        return;
    }
    let (path, name) = tree.split_once(" as ").unwrap_or((tree, ""));
    let mut full = prefix.to_vec();
    full.extend(path.split("::").map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned));
    if full.last().is_some_and(|last| last == "self") && full.len() > 1 {
        full.pop();
    }
    if let Some(last) = full.last().cloned() {
        // A name that is not used by its own name (`as _`) still is an import.
        let name = if name.is_empty() || name == "_" { last } else { name.to_owned() };
        names.insert(name, full);
    }
}

/// The paths with `::` in code that is not a `use`.
fn paths(code: &str) -> Vec<Vec<String>> {
    let part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    code.split(|c| !part(c))
        .filter(|word| word.contains("::") && !word.starts_with("::"))
        .map(|word| word.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect())
        .collect()
}

/// Whether code names the child module, by more than its declaration.
fn uses(code: &str, child: &[String]) -> bool {
    paths(code).iter().any(|path| path.iter().any(|part| *part == child[0]))
}

#[test]
fn a_circle_is_found_through_a_reexport_and_a_parent_that_only_declares_is_none() {
    let files = [
        ("a/mod.rs", "mod one;\nmod two;\npub use one::One;\npub use two::Two;\n"),
        ("a/one.rs", "use super::Two;\n"),
        ("a/two.rs", "use crate::b;\n"),
        ("b.rs", "use crate::{\n    a::One as Other,\n    c::C,\n};\n"),
        ("c.rs", "fn c() -> crate::a::Two {\n    todo!()\n}\n"),
        ("d.rs", "use crate::b::B;\n"),
    ];
    let tree = Tree::of(files.iter().map(|(path, text)| (Path::new(*path), *text)));
    assert_eq!(tree.circles(), [["a/one", "a/two", "b", "c"]]);
}

#[test]
fn a_parent_that_uses_its_child_and_is_used_by_it_is_a_circle() {
    let parent = "mod child;\nfn parent() {\n    child::work();\n}\n";
    for (child, circles) in [("use super::Thing;\n", 1), ("pub fn work() {}\n", 0)] {
        let files = [("a.rs", parent), ("a/child.rs", child)];
        let tree = Tree::of(files.iter().map(|(path, text)| (Path::new(*path), *text)));
        assert_eq!(tree.circles().len(), circles, "{child}");
    }
}
