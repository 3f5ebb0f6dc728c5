//! Every file of the fuzz targets' corpora through the function of its target.

use std::path::PathBuf;

use whatsapp_simulator::fuzzing::{self, Admin, Handshakes};

/// The files of a target's corpus by name.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<_> = files
        .map(|file| {
            let file = file.unwrap();
            (file.file_name().to_string_lossy().into_owned(), std::fs::read(file.path()).unwrap())
        })
        .collect();
    files.sort();
    assert!(files.len() >= 10, "the corpus of {target} has {} files", files.len());
    files
}

/// Runs it on every file, cut at every length too: nothing may depend on an input being whole.
fn run(target: &str, mut run: impl FnMut(&[u8])) {
    for (name, data) in corpus(target) {
        println!("{target}/{name}");
        for length in (0..data.len().min(300)).chain([data.len()]) {
            run(&data[..length]);
        }
    }
}

#[test]
fn frames() {
    run("frames", fuzzing::frames);
}

#[test]
fn stanzas() {
    run("stanza", fuzzing::stanza);
}

#[test]
fn handshakes() {
    let server = Handshakes::default();
    run("handshake", |data| server.shake(data));
}

#[test]
fn requests() {
    let mut admin = Admin::default();
    let answered = corpus("admin").into_iter().map(|(name, data)| (name, admin.request(&data)));
    // The name says what it must be answered, so that the corpus goes on reaching what it was made for.
    let wrong: Vec<_> = answered.filter(|(name, status)| !name.starts_with(&status.to_string())).collect();
    assert_eq!(wrong, []);
}

#[test]
fn every_target_has_a_corpus_and_a_test() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/fuzz_targets");
    let mut targets: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    targets.sort();
    assert_eq!(targets, ["admin", "frames", "handshake", "stanza"]);
}
