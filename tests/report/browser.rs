//! A real browser without a window.

use std::path::PathBuf;
use std::process::{Command, Output};

use crate::skip::skip;

/// A page after it was loaded.
pub struct Seen {
    /// The markup of the document.
    pub dom: String,
    /// The lines on the console: errors, and what the page's policy forbade.
    pub console: Vec<String>,
}

/// A browser with a profile of its own.
pub struct Browser {
    program: &'static str,
    folder: PathBuf,
}

impl Browser {
    /// The browser of this machine. Without one the test is skipped.
    pub fn find(test: &str) -> Option<Browser> {
        let answers =
            |name: &&str| Command::new(name).arg("--version").output().is_ok_and(|out| out.status.success());
        let Some(program) = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(answers)
        else {
            skip("no browser: install chromium");
            return None;
        };
        let folder = std::env::temp_dir().join(format!("deadpeer-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Some(Browser { program, folder })
    }

    /// Opens a page and waits until it is loaded.
    pub fn open(&self, page: &str, options: &[&str]) -> Seen {
        let out = self.run(page, &[options, &["--dump-dom"]].concat());
        let lines = String::from_utf8_lossy(&out.stderr).into_owned();
        let console = lines.lines().filter(|line| line.contains("CONSOLE")).map(str::to_owned).collect();
        let dom = String::from_utf8(out.stdout).unwrap();
        assert!(dom.contains("</html>"), "the browser dumped nothing; it said:\n{lines}");
        Seen { dom, console }
    }

    /// Prints a page and returns the bytes of the PDF.
    pub fn print(&self, page: &str) -> Vec<u8> {
        let paper = self.folder.join("page.pdf");
        self.run(page, &[&format!("--print-to-pdf={}", paper.display())]);
        std::fs::read(paper).unwrap()
    }

    fn run(&self, page: &str, options: &[&str]) -> Output {
        let file = self.folder.join("page.html");
        std::fs::write(&file, page).unwrap();
        // A browser that hangs is ended. Then the test fails.
        let out = Command::new("timeout")
            .args(["--kill-after=5", "120", self.program, "--headless", "--no-sandbox", "--disable-gpu"])
            .args(["--no-first-run", "--disable-background-networking", "--enable-logging=stderr"])
            .arg(format!("--user-data-dir={}", self.folder.join("profile").display()))
            .args(options)
            .arg(format!("file://{}", file.display()))
            .output();
        let out = out.unwrap();
        assert!(out.status.success(), "{}: {}", out.status, String::from_utf8_lossy(&out.stderr));
        out
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // A temporary folder that stays is no fault.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
