//! Requests and answers of pretended clients and workers, in distcc's protocol 1.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What all jobs have in common. Each has a number, at the beginning of its source and of its object.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Talk {
    pub(crate) compiler: String,
    /// Bytes of a source, and of an object.
    pub(crate) source: usize,
    pub(crate) object: usize,
    /// A compile takes so long on average.
    pub(crate) compile: Duration,
}

impl Talk {
    /// All of a request but its body.
    pub(crate) fn request_head(&self) -> Vec<u8> {
        let (compiler, length) = (&self.compiler, self.compiler.len());
        format!(
            "DIST00000001ARGC00000003ARGV{length:08x}{compiler}ARGV00000002-cARGV00000003a.iDOTI{:08x}",
            self.source
        )
        .into_bytes()
    }

    /// All of an answer but its body.
    pub(crate) fn answer_head(&self) -> Vec<u8> {
        format!(
            "DONE00000001STAT00000000SERR00000000SOUT00000000DOTO{:08x}",
            self.object
        )
        .into_bytes()
    }

    /// How long this job takes to compile: between 0.6 and 1.4 of the average, always the same for the same number.
    pub(crate) fn compile_time(&self, job: u32) -> Duration {
        let scattered = f64::from(job.wrapping_mul(2_654_435_761)) / f64::from(u32::MAX);
        self.compile.mul_f64(0.6 + 0.8 * scattered)
    }
}

/// The beginning of a job's source and object.
pub(crate) const NUMBER: usize = 8;

pub(crate) fn number(job: u32) -> [u8; NUMBER] {
    let mut text = [0; NUMBER];
    text.copy_from_slice(format!("{job:08x}").as_bytes());
    text
}

pub(crate) fn parse_number(text: [u8; NUMBER]) -> Option<u32> {
    u32::from_str_radix(std::str::from_utf8(&text).ok()?, 16).ok()
}
