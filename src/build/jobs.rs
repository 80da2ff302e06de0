//! What a person's `-j` means here: the command lines of make and ninja, and `MAKEFLAGS`.

use std::iter::Peekable;

/// How many jobs were asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Jobs {
    /// No `-j`.
    #[default]
    Unsaid,
    /// `-j` alone.
    Unlimited,
    /// `-jN`: a ceiling; 1 means serial.
    AtMost(u32),
}

impl Jobs {
    /// This, or what was said in a weaker place.
    #[must_use]
    pub fn or(self, weaker: Self) -> Self {
        match self {
            Self::Unsaid => weaker,
            Self::Unlimited | Self::AtMost(_) => self,
        }
    }

    /// Whether a person wants one job after the other.
    #[must_use]
    pub fn is_serial(self) -> bool {
        matches!(self, Self::AtMost(0 | 1))
    }

    /// The most jobs at once, if there is a most.
    #[must_use]
    pub fn ceiling(self) -> Option<u32> {
        match self {
            Self::AtMost(jobs) => Some(jobs),
            Self::Unsaid | Self::Unlimited => None,
        }
    }
}

/// A command line without its `-j`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Adapted {
    /// The other arguments.
    pub args: Vec<String>,
    /// What `-j` asked for; the last one counts, as in make.
    pub jobs: Jobs,
    /// The directory of the last `-C`.
    pub directory: Option<String>,
}

/// The content of `MAKEFLAGS` or `GNUMAKEFLAGS`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// What `-j` asked for.
    pub jobs: Jobs,
    /// A jobserver above us is named.
    pub jobserver: bool,
    options: Vec<String>,
    /// ` -- NAME=value …`, exactly as it was.
    variables: String,
}

/// Short options of make that take a value: the rest of the word, or the next word.
const MAKE_VALUES: &str = "CEfIoW";
/// Their long names, when the value is the next word.
const MAKE_LONG_VALUES: &[&str] = &[
    "--directory",
    "--eval",
    "--file",
    "--makefile",
    "--include-dir",
    "--old-file",
    "--assume-old",
    "--what-if",
    "--new-file",
    "--assume-new",
];
/// Short options of ninja that take a value.
const NINJA_VALUES: &str = "Cfkldtw";

/// Takes every form of `-j` out of make's arguments.
#[must_use]
pub fn adapt_make(args: &[String]) -> Adapted {
    adapt(args, MAKE_VALUES)
}

/// Takes `-j N` out of ninja's arguments.
#[must_use]
pub fn adapt_ninja(args: &[String]) -> Adapted {
    adapt(args, NINJA_VALUES)
}

fn adapt(args: &[String], values: &str) -> Adapted {
    let mut adapted = Adapted::default();
    let mut rest = args.iter().map(String::as_str).peekable();
    while let Some(word) = rest.next() {
        if word == "--" {
            adapted.args.push(word.to_owned());
            adapted.args.extend(rest.by_ref().map(str::to_owned));
        } else if word.starts_with("--") {
            adapted.long(word, &mut rest);
        } else if let Some(letters) = word.strip_prefix('-') {
            adapted.bundle(letters, values, &mut rest);
        } else {
            adapted.args.push(word.to_owned());
        }
    }
    adapted
}

impl Adapted {
    fn long<'a>(&mut self, word: &'a str, rest: &mut Peekable<impl Iterator<Item = &'a str>>) {
        if word == "--jobs" {
            self.jobs = next_number(rest);
        } else if let Some(jobs) = word.strip_prefix("--jobs=").and_then(at_most) {
            self.jobs = jobs;
        } else {
            let joined = word.strip_prefix("--directory=").map(str::to_owned);
            let value = MAKE_LONG_VALUES.contains(&word).then(|| rest.next());
            let value = value.flatten().map(str::to_owned);
            let directory = joined.or_else(|| value.clone().filter(|_| word == "--directory"));
            self.directory = directory.or(self.directory.take());
            self.args.push(word.to_owned());
            self.args.extend(value);
        }
    }

    /// One word of short options, such as `-kj4` or `-Csub`.
    fn bundle<'a>(
        &mut self,
        letters: &'a str,
        values: &str,
        rest: &mut Peekable<impl Iterator<Item = &'a str>>,
    ) {
        let whole = format!("-{letters}");
        let ends =
            |(_, letter): &(usize, char)| values.contains(*letter) || "jlO".contains(*letter);
        let Some((at, letter)) = letters.char_indices().find(ends) else {
            return self.args.push(whole);
        };
        let attached = &letters[at + 1..];
        let number_may_follow = letter == 'l' && !values.contains('l');
        match (letter, attached) {
            ('j', "") => self.set_jobs(&letters[..at], next_number(rest)),
            ('j', number) => match at_most(number) {
                Some(jobs) => self.set_jobs(&letters[..at], jobs),
                // make's own complaint is the best one.
                None => self.args.push(whole),
            },
            ('O', _) => self.args.push(whole),
            (_, "") => {
                let value = if number_may_follow {
                    rest.next_if(|next| is_number(next))
                } else {
                    rest.next()
                };
                self.note_directory(letter, value);
                self.args.push(whole);
                self.args.extend(value.map(str::to_owned));
            }
            _ => {
                self.note_directory(letter, Some(attached));
                self.args.push(whole);
            }
        }
    }

    fn note_directory(&mut self, letter: char, value: Option<&str>) {
        if letter == 'C' {
            self.directory = value.map(str::to_owned);
        }
    }

    fn set_jobs(&mut self, before: &str, jobs: Jobs) {
        self.jobs = jobs;
        if !before.is_empty() {
            self.args.push(format!("-{before}"));
        }
    }
}

fn next_number<'a>(rest: &mut Peekable<impl Iterator<Item = &'a str>>) -> Jobs {
    let number = rest.next_if(|next| is_number(next));
    number.map_or(Jobs::Unlimited, |number| {
        at_most(number).unwrap_or(Jobs::Unlimited)
    })
}

fn is_number(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit())
}

/// `-j99999999999` means as many as there are.
fn at_most(number: &str) -> Option<Jobs> {
    is_number(number).then(|| number.parse().map_or(Jobs::Unlimited, Jobs::AtMost))
}

impl Flags {
    /// Reads the variable's value. Its first word may be a bundle of letters without a dash.
    #[must_use]
    pub fn parse(value: &str) -> Self {
        let (options, variables) = match value.find(" -- ") {
            Some(at) => value.split_at(at),
            None => (value, ""),
        };
        let mut words = words(options);
        let jobserver = words.iter().any(|word| word.starts_with("--jobserver"));
        words.retain(|word| !word.starts_with("--jobserver"));
        if let Some(first) = words.first_mut()
            && !first.starts_with('-')
            && !first.contains('=')
        {
            first.insert(0, '-');
        }
        let adapted = adapt_make(&words);
        Self {
            jobs: adapted.jobs,
            jobserver,
            options: adapted.args,
            variables: variables.to_owned(),
        }
    }

    /// The value without any `-j` or jobserver.
    #[must_use]
    pub fn serial(&self) -> String {
        format!("{}{}", self.options.join(" "), self.variables)
    }

    /// The value that sends make to our jobserver; `auth` is `--jobserver-auth=R,W`.
    #[must_use]
    pub fn with_jobserver(&self, auth: &str) -> String {
        // A leading space says that there is no bundle of letters.
        format!("{} -j {auth}{}", self.options.join(" "), self.variables)
    }
}

/// Splits at blanks that no backslash protects, and keeps the backslashes.
fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut escaped = false;
    for letter in text.chars() {
        if matches!(letter, ' ' | '\t') && !escaped {
            words.push(String::new());
        } else if let Some(word) = words.last_mut() {
            word.push(letter);
        }
        escaped = letter == '\\' && !escaped;
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn every_way_to_write_it_is_understood() {
        for (line, left, jobs) in [
            ("all", "all", Jobs::Unsaid),
            ("-j all", "all", Jobs::Unlimited),
            ("-j8 -k", "-k", Jobs::AtMost(8)),
            ("-j 4 all", "all", Jobs::AtMost(4)),
            ("-kj4", "-k", Jobs::AtMost(4)),
            ("-sj all", "-s all", Jobs::Unlimited),
            ("-sj 3 all", "-s all", Jobs::AtMost(3)),
            ("--jobs all", "all", Jobs::Unlimited),
            ("--jobs=1", "", Jobs::AtMost(1)),
            ("--jobs 4", "", Jobs::AtMost(4)),
            ("-j2 -j5", "", Jobs::AtMost(5)),
            ("-j99999999999", "", Jobs::Unlimited),
            ("-jx", "-jx", Jobs::Unsaid),
            ("-l 4 -j", "-l 4", Jobs::Unlimited),
            ("-l4 all", "-l4 all", Jobs::Unsaid),
            ("-f -j8 all", "-f -j8 all", Jobs::Unsaid),
            ("--file -j8", "--file -j8", Jobs::Unsaid),
            ("-Otarget", "-Otarget", Jobs::Unsaid),
            ("-C jam", "-C jam", Jobs::Unsaid),
            ("-- -j", "-- -j", Jobs::Unsaid),
        ] {
            let adapted = adapt_make(&split(line));
            let found = (adapted.args.join(" "), adapted.jobs);
            assert_eq!(found, (left.to_owned(), jobs), "{line}");
        }
    }

    #[test]
    fn the_directory_is_the_last_one_named() {
        for (line, directory) in [
            ("-C a", "a"),
            ("-Ca -C b", "b"),
            ("--directory=c", "c"),
            ("--directory d", "d"),
        ] {
            assert_eq!(
                adapt_make(&split(line)).directory.as_deref(),
                Some(directory)
            );
        }
        assert_eq!(adapt_ninja(&split("-k 0 -C o -j 3")).jobs, Jobs::AtMost(3));
    }

    #[test]
    fn makeflags_in_every_form_keep_all_but_the_jobs() {
        for (value, serial, jobs) in [
            ("-j", "", Jobs::Unlimited),
            ("j8", "", Jobs::AtMost(8)),
            ("kj8", "-k", Jobs::AtMost(8)),
            ("k -j8 -- CC=gcc", "-k -- CC=gcc", Jobs::AtMost(8)),
            (" -j -- A=-j4 B=x", " -- A=-j4 B=x", Jobs::Unlimited),
            ("CC=gcc", "CC=gcc", Jobs::Unsaid),
            ("w --eval=a\\ -j3", "-w --eval=a\\ -j3", Jobs::Unsaid),
        ] {
            let flags = Flags::parse(value);
            assert_eq!(
                (flags.serial(), flags.jobs),
                (serial.to_owned(), jobs),
                "{value}"
            );
        }
    }

    #[test]
    fn the_jobserver_stands_before_the_variables_and_replaces_another() {
        let flags = Flags::parse("ks -j4 --jobserver-auth=3,4 -- CC=gcc");
        assert!(flags.jobserver);
        let auth = "--jobserver-auth=7,8";
        assert_eq!(
            flags.with_jobserver(auth),
            "-ks -j --jobserver-auth=7,8 -- CC=gcc"
        );
    }
}
