//! distccd's log, line by line.

use std::{collections::VecDeque, fmt};

use super::{DaemonEvent, canary};

/// Enough of the log's end to explain a failed start.
const TAIL: usize = 12;
/// No line of distccd's is longer in good faith: its own buffer is 4 KiB.
pub(super) const MAX_LINE: usize = 4096;

/// How a compile ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompileOutcome {
    /// The compiler ran to its end.
    Exited {
        /// Its exit code.
        code: i32,
    },
    /// A signal ended the compiler.
    Signalled {
        /// Its number.
        signal: i32,
    },
    /// The primary went away or took the job back.
    Cancelled,
    /// It ran longer than a compile may.
    TooLong,
}

/// One compile that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompileLine {
    /// The source file, as the primary named it.
    pub file: String,
    /// The compiler's path here.
    pub compiler: String,
    /// Time from the connection to the answer, in milliseconds.
    pub millis: u64,
    /// How it ended.
    pub outcome: CompileOutcome,
}

impl fmt::Display for CompileLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A peer chose these names: whatever would move the cursor is escaped.
        let file = self.file.escape_debug();
        let compiler = self.compiler.escape_debug();
        write!(f, "{file}  {compiler}  {} ms  ", self.millis)?;
        match self.outcome {
            CompileOutcome::Exited { code: 0 } => write!(f, "ok"),
            CompileOutcome::Exited { code } => write!(f, "exit {code}"),
            CompileOutcome::Signalled { signal } => write!(f, "killed by signal {signal}"),
            CompileOutcome::Cancelled => write!(f, "cancelled"),
            CompileOutcome::TooLong => write!(f, "ran too long"),
        }
    }
}

/// What one line says, if it says something to a person.
pub(super) fn event(line: &str) -> Option<DaemonEvent> {
    let message = line.split_once("] ").map_or(line, |(_, message)| message);
    if let Some(summary) = message.strip_prefix("(dcc_job_summary) client: ") {
        return compiled(summary).map(DaemonEvent::Compiled);
    }
    trouble(message).map(DaemonEvent::Trouble)
}

/// `127.0.0.1:52686 COMPILE_OK exit:0 sig:0 core:0 ret:0 time:50ms /usr/bin/gcc a.c`
fn compiled(summary: &str) -> Option<CompileLine> {
    let mut fields = summary.splitn(8, ' ');
    let status = fields.nth(1)?;
    let code = value(fields.next()?, "exit:")?;
    let signal = value(fields.next()?, "sig:")?;
    let millis = fields.nth(2)?.strip_prefix("time:")?.strip_suffix("ms")?;
    let (compiler, file) = fields.next()?.split_once(' ')?;
    if file == canary::SOURCE {
        return None;
    }
    let outcome = match (status, signal) {
        ("COMPILE_OK" | "COMPILE_ERROR", 0) => CompileOutcome::Exited { code },
        ("COMPILE_OK" | "COMPILE_ERROR", signal) => CompileOutcome::Signalled { signal },
        ("COMPILE_TIMEOUT", _) => CompileOutcome::TooLong,
        ("CLI_DISCONN", _) => CompileOutcome::Cancelled,
        // Requests that never became a compile; what was wrong with them has a line of its own.
        _ => return None,
    };
    Some(CompileLine {
        file: file.to_owned(),
        compiler: compiler.to_owned(),
        millis: millis.parse().ok()?,
        outcome,
    })
}

fn value(field: &str, name: &str) -> Option<i32> {
    field.strip_prefix(name)?.parse().ok()
}

fn trouble(message: &str) -> Option<String> {
    /// Lines about a client that left or a compiler's verdict: the summary tells both.
    const ORDINARY: [&str; 6] = [
        "(dcc_readx)",
        "(dcc_writex)",
        "(dcc_r_",
        "(dcc_x_",
        "(dcc_pump_",
        "(dcc_collect_child)",
    ];
    const NOT_OFFERED: &str = "in DISTCC_CMDLIST failed";
    let said = message.trim();
    let serious = ["ERROR:", "CRITICAL!", "ALERT!", "EMERGENCY!"];
    let ordinary = ORDINARY.iter().any(|start| said.starts_with(start))
        || said.contains("failed with exit code");
    if said.ends_with(NOT_OFFERED) {
        let name = said
            .split("lookup of ")
            .nth(1)?
            .trim_end_matches(NOT_OFFERED);
        let name = name.trim_end().escape_debug();
        return Some(format!(
            "refused a job for {name}: this worker does not offer it"
        ));
    }
    let told = serious.iter().any(|word| said.contains(word)) && !ordinary;
    told.then(|| format!("distccd: {}", said.escape_debug()))
}

/// The last lines.
#[derive(Debug, Default)]
pub(super) struct Tail(VecDeque<String>);

impl Tail {
    pub(super) fn push(&mut self, line: &str) {
        if self.0.len() == TAIL {
            self.0.pop_front();
        }
        self.0.push_back(line.escape_debug().to_string());
    }

    /// For an error message: empty, or the lines with an introduction.
    pub(super) fn quote(&self) -> String {
        if self.0.is_empty() {
            return String::new();
        }
        let lines: Vec<_> = self.0.iter().map(|line| format!("\n    {line}")).collect();
        format!("\n  the end of its log:{}", lines.concat())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(line: &str) -> Option<String> {
        event(line).map(|event| match event {
            DaemonEvent::Compiled(line) => line.to_string(),
            DaemonEvent::Trouble(text) => text,
        })
    }

    #[test]
    fn a_summary_becomes_one_line() {
        let of = |status: &str| {
            shown(&format!(
                "distccd[7] (dcc_job_summary) client: 127.0.0.1:52686 {status} core:0 ret:0 time:50ms /usr/bin/gcc my file.c"
            ))
        };
        insta::assert_snapshot!(of("COMPILE_OK exit:0 sig:0").unwrap(), @"my file.c  /usr/bin/gcc  50 ms  ok");
        insta::assert_snapshot!(of("COMPILE_ERROR exit:1 sig:0").unwrap(), @"my file.c  /usr/bin/gcc  50 ms  exit 1");
        insta::assert_snapshot!(of("COMPILE_ERROR exit:0 sig:9").unwrap(), @"my file.c  /usr/bin/gcc  50 ms  killed by signal 9");
        insta::assert_snapshot!(of("CLI_DISCONN exit:0 sig:0").unwrap(), @"my file.c  /usr/bin/gcc  50 ms  cancelled");
        insta::assert_snapshot!(of("COMPILE_TIMEOUT exit:0 sig:0").unwrap(), @"my file.c  /usr/bin/gcc  50 ms  ran too long");
        assert_eq!(of("OTHER exit:0 sig:0"), None);
    }

    #[test]
    fn canaries_and_aborted_requests_are_not_shown() {
        for line in [
            "distccd[1] (dcc_job_summary) client: 127.0.0.1:5 COMPILE_OK exit:0 sig:0 core:0 ret:0 time:50ms /usr/bin/gcc distmesh-canary.c",
            "distccd[1] (dcc_job_summary) client: 127.0.0.1:5 OTHER exit:0 sig:0 core:0 ret:108 time:998ms ",
            "distccd[1] (dcc_readx) ERROR: unexpected eof on fd4",
            "distccd[1] (dcc_r_token_int) ERROR: read failed while waiting for token \"DOTI\"",
            "",
        ] {
            assert_eq!(event(line), None, "{line}");
        }
    }

    #[test]
    fn a_refused_compiler_is_told_without_control_characters() {
        let line = "distccd[1] (dcc_remap_compiler) Warning: lookup of /opt/\x1b[2Jgcc in DISTCC_CMDLIST failed";
        insta::assert_snapshot!(shown(line).unwrap(), @r"refused a job for /opt/\u{1b}[2Jgcc: this worker does not offer it");
    }

    proptest! {
        #[test]
        fn no_line_panics(line in "\\PC{0,200}", cut in 0usize..140) {
            let summary = "distccd[1] (dcc_job_summary) client: 127.0.0.1:5 COMPILE_OK exit:0 sig:0 core:0 ret:0 time:50ms /usr/bin/gcc a.c";
            let _ = event(&line);
            let _ = event(&format!("{}{line}", &summary[..cut.min(summary.len())]));
        }
    }
}
