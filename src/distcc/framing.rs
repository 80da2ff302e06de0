//! Requests and responses of protocols 1, 2 and 3, fed in chunks of any size.

use super::target;
use crate::event::Compiler;

/// An argument list larger than this is refused: Linux itself allows 2 MiB for arguments and environment together.
const MAX_HEAD: usize = 2 << 20;
/// Pump sends one entry per header; no real compile reads a million.
const MAX_FILES: u32 = 1 << 20;
/// Enough of the compiler's messages to recognise an internal error.
const MAX_STDERR: usize = 64 << 10;
/// Five times the largest object that anybody told of (200 MB with debug information, upstream issue 533). What announces more is
/// no compile: it would only fill the disk of whoever keeps it.
const MAX_BODIES: u64 = 1 << 30;
/// A token and eight hex digits.
const TOKEN: usize = 12;

/// Bytes that are not distcc's protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Another token was due.
    #[error("not a distcc stream: expected {expected}, got {got:?}")]
    Token {
        /// The token that was due.
        expected: &'static str,
        /// What came, made printable.
        got: String,
    },
    /// A protocol version nobody speaks.
    #[error("distcc protocol {0} is not supported: use 1, 2 or 3")]
    Version(u32),
    /// The arguments exceed every system's limit.
    #[error("the argument list is too long for a real compiler call")]
    TooLong,
    /// The lengths announced exceed every real job's.
    #[error("{0} bytes are more than any source or object has")]
    TooLarge(u64),
    /// Bytes that no length announced: one of the lengths is wrong.
    #[error("{0} more bytes follow the end of the message")]
    Surplus(usize),
}

/// How a chunk was used: its first `head` bytes end with the arguments, the next `body` bytes follow them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fed {
    /// Bytes kept by the parser.
    pub head: usize,
    /// Bytes that the caller keeps. What is left of the chunk is not part of the message.
    pub body: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Dist,
    Cdir,
    Argc,
    Argv(u32),
    Doti,
    Nfil,
    Name(u32),
    File(u32),
    End,
}

/// Finds the boundaries of one request.
#[derive(Debug)]
pub struct RequestParser {
    due: Due,
    token: Vec<u8>,
    left: u32,
    keep: bool,
    head: Vec<u8>,
    argc_at: usize,
    version: u32,
    args: Vec<Vec<u8>>,
    announced: u64,
}

impl Default for RequestParser {
    fn default() -> Self {
        Self {
            due: Due::Dist,
            token: Vec::with_capacity(TOKEN),
            left: 0,
            keep: false,
            head: Vec::new(),
            argc_at: 0,
            version: 0,
            args: Vec::new(),
            announced: 0,
        }
    }
}

impl RequestParser {
    /// Consumes the part of `chunk` that belongs to the request.
    pub fn feed(&mut self, chunk: &[u8]) -> Result<Fed, Malformed> {
        let mut fed = Fed::default();
        let mut rest = chunk;
        while !rest.is_empty() && !self.is_complete() {
            let in_head = !self.head_done();
            let used = self.step(rest)?;
            if in_head {
                self.retain(&rest[..used])?;
                fed.head += used;
            } else {
                fed.body += used;
            }
            rest = &rest[used..];
        }
        Ok(fed)
    }

    /// The whole request was fed.
    pub fn is_complete(&self) -> bool {
        self.due == Due::End && self.left == 0
    }

    /// Bytes that the packet which has begun still lacks, as far as its length has come.
    pub fn left(&self) -> u64 {
        self.left.into()
    }

    /// The client may close here: its preprocessor failed, or it never had anything to say.
    pub fn may_be_abandoned(&self) -> bool {
        let at_boundary = self.left == 0 && self.token.is_empty();
        self.head.is_empty() || (at_boundary && matches!(self.due, Due::Doti | Due::Nfil))
    }

    /// Protocol version; 0 before it is known.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The arguments were fed.
    pub fn has_arguments(&self) -> bool {
        self.head_done()
    }

    /// The arguments, once they were fed.
    pub fn arguments(&self) -> Arguments<'_> {
        Arguments { args: &self.args }
    }

    /// The bytes up to the last argument, as the client sent them.
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// The same with another compiler; every other byte is untouched.
    pub fn head_for(&self, compiler: &str) -> Vec<u8> {
        let Some(first) = self.args.first().filter(|arg| *arg != compiler.as_bytes()) else {
            return self.head.clone();
        };
        let at = self.argc_at + TOKEN;
        let mut head = self.head[..at].to_vec();
        head.extend(format!("ARGV{:08x}{compiler}", compiler.len()).bytes());
        head.extend(&self.head[at + TOKEN + first.len()..]);
        head
    }

    fn head_done(&self) -> bool {
        self.left == 0 && matches!(self.due, Due::Doti | Due::Nfil | Due::End)
            || matches!(self.due, Due::Name(_) | Due::File(_) | Due::End)
    }

    fn retain(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        if self.head.len() + bytes.len() > MAX_HEAD {
            return Err(Malformed::TooLong);
        }
        self.head.extend(bytes);
        Ok(())
    }

    /// Uses a part of one packet: of its body, or of its token.
    fn step(&mut self, rest: &[u8]) -> Result<usize, Malformed> {
        if self.left > 0 {
            let used = rest.len().min(self.left as usize);
            if let Some(arg) = self.args.last_mut().filter(|_| self.keep) {
                arg.extend(&rest[..used]);
            }
            self.left -= used as u32;
            return Ok(used);
        }
        let used = rest.len().min(TOKEN - self.token.len());
        self.token.extend(&rest[..used]);
        if self.token.len() == TOKEN {
            self.handle_token(used)?;
            self.token.clear();
        }
        Ok(used)
    }

    fn handle_token(&mut self, used: usize) -> Result<(), Malformed> {
        let token = std::mem::take(&mut self.token);
        self.keep = false;
        self.due = match self.due {
            Due::Dist => {
                self.version = version(number(&token, "DIST")?)?;
                if self.version == 3 {
                    Due::Cdir
                } else {
                    Due::Argc
                }
            }
            Due::Cdir => self.body(&token, "CDIR", Due::Argc)?,
            Due::Argc => {
                self.argc_at = self.head.len() + used - TOKEN;
                self.after_arguments(number(&token, "ARGC")?)
            }
            Due::Argv(more) => {
                self.args.push(Vec::new());
                let next = self.after_arguments(more - 1);
                self.body(&token, "ARGV", next)?;
                self.keep = true;
                next
            }
            Due::Doti => self.body(&token, "DOTI", Due::End)?,
            Due::Nfil => match number(&token, "NFIL")? {
                0 => Due::End,
                files if files > MAX_FILES => return Err(Malformed::TooLong),
                files => Due::Name(files),
            },
            Due::Name(more) => self.body(&token, "NAME", Due::File(more))?,
            Due::File(more) => {
                let next = if more == 1 {
                    Due::End
                } else {
                    Due::Name(more - 1)
                };
                let kind = if token.starts_with(b"LINK") {
                    "LINK"
                } else {
                    "FILE"
                };
                self.body(&token, kind, next)?
            }
            Due::End => Due::End,
        };
        Ok(())
    }

    fn after_arguments(&self, more: u32) -> Due {
        match (more, self.version) {
            (0, 3) => Due::Nfil,
            (0, _) => Due::Doti,
            _ => Due::Argv(more),
        }
    }

    fn body(&mut self, token: &[u8], name: &'static str, next: Due) -> Result<Due, Malformed> {
        self.left = announce(&mut self.announced, number(token, name)?)?;
        Ok(next)
    }
}

/// The compiler call inside a request.
#[derive(Clone, Copy, Debug)]
pub struct Arguments<'a> {
    args: &'a [Vec<u8>],
}

impl<'a> Arguments<'a> {
    /// `argv[0]`, empty when it is missing, and the target.
    pub fn compiler(&self) -> Compiler {
        // What is no text is no target.
        let words = self.args.iter().skip(1);
        let words = words.map(|word| std::str::from_utf8(word).unwrap_or_default());
        Compiler {
            path: self.args.first().map(text).unwrap_or_default(),
            target: target(words).map(str::to_owned),
        }
    }

    /// The input file: the last argument with a source file's suffix.
    pub fn source(&self) -> Option<String> {
        const SUFFIXES: [&str; 12] = [
            ".c", ".cc", ".cpp", ".cxx", ".c++", ".C", ".m", ".mm", ".M", ".i", ".ii", ".mii",
        ];
        let inputs = self.args.iter().skip(1).map(text);
        inputs
            .filter(|arg| !arg.starts_with('-'))
            .rfind(|arg| SUFFIXES.iter().any(|suffix| arg.ends_with(suffix)))
    }

    /// The language given by `-x`.
    pub fn language(&self) -> Option<String> {
        let at = self.args.iter().position(|arg| arg == b"-x")?;
        self.args.get(at + 1).map(text)
    }

    /// The raw arguments.
    pub fn raw(&self) -> &'a [Vec<u8>] {
        self.args
    }
}

fn text(arg: impl AsRef<[u8]>) -> String {
    String::from_utf8_lossy(arg.as_ref()).into_owned()
}

/// The packets of a response, in order.
const RESPONSE: [&str; 6] = ["DONE", "STAT", "SERR", "SOUT", "DOTO", "DOTD"];
const OBJECT: usize = 4;

/// Finds the boundaries of one response.
#[derive(Debug, Default)]
pub struct ResponseParser {
    packets: usize,
    token: Vec<u8>,
    left: u32,
    version: u32,
    status: u32,
    stderr: Vec<u8>,
    object: u32,
    announced: u64,
}

impl ResponseParser {
    /// Consumes the part of `chunk` that belongs to the response; returns how much that is.
    pub fn feed(&mut self, chunk: &[u8]) -> Result<usize, Malformed> {
        let mut rest = chunk;
        while !rest.is_empty() && !self.is_complete() {
            let used = if self.left > 0 {
                self.skip_body(rest)
            } else {
                self.take_token(rest)?
            };
            rest = &rest[used..];
        }
        Ok(chunk.len() - rest.len())
    }

    /// Bytes that the packet which has begun still lacks, as far as its length has come.
    pub fn left(&self) -> u64 {
        self.left.into()
    }

    /// The whole response was fed.
    pub fn is_complete(&self) -> bool {
        let packets = if self.version == 3 && self.status == 0 {
            6
        } else {
            5
        };
        self.packets == packets && self.left == 0
    }

    /// Protocol version; 0 before it is known.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The compiler's wait status.
    pub fn status(&self) -> u32 {
        self.status
    }

    /// The beginning of what the compiler said, for an error message.
    pub(super) fn first_words(&self) -> String {
        const ENOUGH: usize = 300;
        let words = &self.stderr[..self.stderr.len().min(ENOUGH)];
        String::from_utf8_lossy(words).trim().to_owned()
    }

    /// Why the answer is the worker's fault and not the source file's, if it is.
    pub fn fault(&self) -> Option<String> {
        let (signal, exit) = (self.status & 0x7f, (self.status >> 8) & 0xff);
        if signal != 0 {
            return Some(format!("the compiler died by signal {signal}"));
        }
        // distcc would take these for a success, and an object that never came for the result of the compile.
        if self.status != exit << 8 {
            return Some(format!("no process ends with status {:#x}", self.status));
        }
        if (exit == 0) != (self.object > 0) {
            return Some("an object comes with success, and only with it".to_owned());
        }
        // distccd's own exit codes: the compiler missing, job lifetime over, the connection lost, …
        if (100..=120).contains(&exit) {
            return Some(format!("distccd answered with its own exit code {exit}"));
        }
        let said = |words: &str| {
            self.stderr
                .windows(words.len())
                .any(|w| w == words.as_bytes())
        };
        let words = [
            "internal compiler error",
            "out of memory",
            "Killed signal",
            "virtual memory exhausted",
            "No space left on device",
            "Disk quota exceeded",
        ];
        let crash = words.into_iter().find(|words| exit != 0 && said(words))?;
        Some(format!("the compiler reported: {crash}"))
    }

    fn skip_body(&mut self, rest: &[u8]) -> usize {
        let used = rest.len().min(self.left as usize);
        if self.packets == 3 {
            let room = MAX_STDERR.saturating_sub(self.stderr.len());
            self.stderr.extend(&rest[..used.min(room)]);
        }
        self.left -= used as u32;
        used
    }

    fn take_token(&mut self, rest: &[u8]) -> Result<usize, Malformed> {
        let used = rest.len().min(TOKEN - self.token.len());
        self.token.extend(&rest[..used]);
        if self.token.len() < TOKEN {
            return Ok(used);
        }
        let token = std::mem::take(&mut self.token);
        let value = number(&token, RESPONSE[self.packets])?;
        match self.packets {
            0 => self.version = version(value)?,
            1 => self.status = value,
            _ => self.left = announce(&mut self.announced, value)?,
        }
        if self.packets == OBJECT {
            self.object = value;
        }
        self.packets += 1;
        Ok(used)
    }
}

/// An answer that makes the client compile locally at once: exit code 100, distcc's "failed to distribute".
pub fn hand_back_answer(version: u32) -> Vec<u8> {
    format!("DONE{version:08x}STAT00006400SERR00000000SOUT00000000DOTO00000000").into_bytes()
}

fn version(version: u32) -> Result<u32, Malformed> {
    if (1..=3).contains(&version) {
        return Ok(version);
    }
    Err(Malformed::Version(version))
}

/// Adds a body's length to what a message has announced so far.
fn announce(so_far: &mut u64, length: u32) -> Result<u32, Malformed> {
    *so_far += u64::from(length);
    if *so_far > MAX_BODIES {
        return Err(Malformed::TooLarge(*so_far));
    }
    Ok(length)
}

fn number(token: &[u8], expected: &'static str) -> Result<u32, Malformed> {
    let digits = token.strip_prefix(expected.as_bytes());
    digits
        .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
        .and_then(|digits| std::str::from_utf8(digits).ok())
        .and_then(|digits| u32::from_str_radix(digits, 16).ok())
        .ok_or_else(|| Malformed::Token {
            expected,
            got: token.escape_ascii().to_string(),
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const V2: &[u8] =
        b"DIST00000002ARGC00000003ARGV00000003gccARGV00000002-cARGV00000003a.cDOTI00000004abcd";
    const V3: &[u8] = b"DIST00000003CDIR00000001/ARGC00000002ARGV00000003gccARGV00000003a.cNFIL00000002NAME00000002/aFILE00000001xNAME00000002/bLINK00000001y";
    const DONE: &[u8] =
        b"DONE00000003STAT00000000SERR00000002hiSOUT00000000DOTO00000003objDOTD00000001d";

    fn split(parser: &mut RequestParser, bytes: &[u8], sizes: &[usize]) -> Vec<u8> {
        let (mut out, mut rest, mut sizes) = (Vec::new(), bytes, sizes.iter().cycle());
        while !rest.is_empty() && !parser.is_complete() {
            let take = (*sizes.next().unwrap()).clamp(1, rest.len());
            let fed = parser.feed(&rest[..take]).unwrap();
            out.extend(&rest[fed.head..fed.head + fed.body]);
            rest = &rest[take..];
        }
        out
    }

    #[test]
    fn another_compiler_changes_only_its_own_packet() {
        let mut parser = RequestParser::default();
        parser.feed(V2).unwrap();
        assert_eq!(parser.head_for("gcc"), parser.head());
        let head = String::from_utf8(parser.head_for("/opt/gcc")).unwrap();
        assert_eq!(
            head,
            "DIST00000002ARGC00000003ARGV00000008/opt/gccARGV00000002-cARGV00000003a.c"
        );
        assert_eq!(parser.arguments().source().as_deref(), Some("a.c"));
    }

    #[test]
    fn a_request_that_ends_before_its_body_was_abandoned() {
        let mut parser = RequestParser::default();
        assert!(parser.may_be_abandoned());
        parser.feed(&V2[..V2.len() - 16]).unwrap();
        assert!(parser.may_be_abandoned() && !parser.is_complete());
        parser.feed(b"DOTI00").unwrap();
        assert!(!parser.may_be_abandoned());
    }

    #[test]
    fn a_worker_s_fault_is_told_from_a_compile_error() {
        for (stat, stderr, object, fault) in [
            ("00000000", "", "obj", false),
            ("00000100", "x", "", false),
            ("00006400", "x", "", true),
            ("00000009", "x", "", true),
            ("00000100", "internal compiler error", "", true),
            // What distcc would take for a success without looking for an object, or with an empty one.
            ("00000080", "", "", true),
            ("00010000", "", "", true),
            ("00000000", "", "", true),
            ("00000100", "x", "obj", true),
        ] {
            let mut parser = ResponseParser::default();
            let (len, size) = (stderr.len(), object.len());
            let bytes = format!(
                "DONE00000001STAT{stat}SERR{len:08x}{stderr}SOUT00000000DOTO{size:08x}{object}"
            );
            parser.feed(bytes.as_bytes()).unwrap();
            assert!(parser.is_complete());
            assert_eq!(parser.fault().is_some(), fault, "{bytes}");
        }
    }

    #[test]
    fn a_message_that_announces_more_than_any_compile_has_is_refused_at_once() {
        let head = "DIST00000001ARGC00000001ARGV00000003gccDOTI";
        let limit = MAX_BODIES as u32;
        for (length, fits) in [(limit - 3, true), (limit - 2, false), (u32::MAX, false)] {
            let fed = RequestParser::default().feed(format!("{head}{length:08x}").as_bytes());
            assert_eq!(fed.is_ok(), fits, "{length}");
        }
        let done = "DONE00000001STAT00000000SERR00000001xSOUT00000000DOTO";
        for (length, fits) in [(limit - 1, true), (limit, false)] {
            let fed = ResponseParser::default().feed(format!("{done}{length:08x}").as_bytes());
            assert_eq!(fed.is_ok(), fits, "{length}");
        }
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_bytes(sizes in prop::collection::vec(1usize..40, 1..9), v3 in any::<bool>()) {
            let bytes = if v3 { V3 } else { V2 };
            let mut parser = RequestParser::default();
            let body = split(&mut parser, bytes, &sizes);
            prop_assert!(parser.is_complete());
            prop_assert_eq!([parser.head(), &body].concat(), bytes);
            let mut whole = RequestParser::default();
            whole.feed(bytes).unwrap();
            prop_assert_eq!(parser.head_for("/opt/gcc"), whole.head_for("/opt/gcc"));
            let mut response = ResponseParser::default();
            for chunk in DONE.chunks(sizes[0]) {
                prop_assert!(!response.is_complete());
                prop_assert_eq!(response.feed(chunk).unwrap(), chunk.len());
            }
            prop_assert!(response.is_complete());
        }

        #[test]
        fn no_bytes_panic(junk in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..80) {
            let _ = RequestParser::default().feed(&[&V3[..cut], &junk].concat());
            let _ = ResponseParser::default().feed(&[&DONE[..cut.min(DONE.len())], &junk].concat());
        }
    }
}
