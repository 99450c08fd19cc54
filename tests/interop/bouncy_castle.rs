//! Bouncy Castle, by a small program of ours (`bc/Peer.java`) that is compiled when the test runs.

use std::process::Command;

use tempfile::TempDir;

use crate::case::{Case, Job, Made, Peer, World};

pub struct BouncyCastle {
    folder: TempDir,
}

const JARS: [&str; 4] = ["bcmail", "bcpkix", "bcprov", "bcutil"];

fn class_path() -> String {
    JARS.map(|name| format!("/usr/share/java/{name}.jar")).join(":")
}

/// Whether its libraries are here.
pub fn is_installed() -> bool {
    class_path().split(':').all(|file| std::path::Path::new(file).is_file())
}

impl BouncyCastle {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/bc/Peer.java");
        let mut compile = Command::new("javac");
        compile.args(["-cp", &class_path(), "-d"]).arg(folder.path()).arg(source);
        let output = compile.output().unwrap();
        assert!(output.status.success(), "javac: {}", String::from_utf8_lossy(&output.stderr));
        Self { folder }
    }

    /// Runs all jobs in one Java machine; what each made, or why not.
    fn run(&self, jobs: &[String]) -> Vec<Result<Vec<u8>, String>> {
        let place = |number: usize| self.folder.path().join(format!("out-{number}"));
        let error = |number: usize| self.folder.path().join(format!("out-{number}.error"));
        let mut text = String::new();
        for (number, job) in jobs.iter().enumerate() {
            for file in [place(number), error(number)] {
                let _ = std::fs::remove_file(file);
            }
            text.push_str(&format!("{job}\t{}\n", place(number).display()));
        }
        let list = self.folder.path().join("jobs");
        std::fs::write(&list, text).unwrap();
        let path = format!("{}:{}", self.folder.path().display(), class_path());
        let output = Command::new("java").args(["-cp", &path, "Peer"]).arg(&list).output().unwrap();
        assert!(output.status.success(), "java: {}", String::from_utf8_lossy(&output.stderr));
        let answer = |number| {
            std::fs::read(place(number))
                .map_err(|_| std::fs::read_to_string(error(number)).unwrap_or_else(|_| "no answer".into()))
        };
        (0..jobs.len()).map(answer).collect()
    }
}

impl Peer for BouncyCastle {
    fn letter(&self) -> char {
        'B'
    }

    fn make(&self, world: &World, case: Case) -> Vec<Made> {
        if case == Case::DetachedPssMax {
            return Vec::new();
        }
        let job = format!("make\t{}\t{}", case.word(), world.place(case).folder().display());
        let object = self.run(&[job]).remove(0).unwrap_or_else(|why| panic!("{case:?}: {why}"));
        vec![Made { how: "", object }]
    }

    fn read(&self, world: &World, jobs: &[Job]) -> Vec<Result<Vec<u8>, String>> {
        let lines = jobs.iter().enumerate().map(|(number, job)| {
            let file = |what: &str| self.folder.path().join(format!("{what}-{number}"));
            std::fs::write(file("object"), &job.object).unwrap();
            std::fs::write(file("content"), &job.content).unwrap();
            let content = if job.case.is_detached() { file("content").display().to_string() } else { "-".into() };
            let folder = world.place(job.case).folder().display();
            format!("read\t{}\t{folder}\t{}\t{content}", job.case.word(), file("object").display())
        });
        self.run(&lines.collect::<Vec<_>>())
    }
}
