//! What the words of a compiler call mean, before and after distcc has carried them.

/// Options whose value is the next word.
pub const TAKES_VALUE: &[&str] = &[
    "-I",
    "-D",
    "-U",
    "-include",
    "-imacros",
    "-isystem",
    "-iquote",
    "-idirafter",
    "-isysroot",
    "-MF",
    "-MT",
    "-MQ",
    "-target",
    "-arch",
    "-Xclang",
    "-Xpreprocessor",
    "-Xassembler",
    "-Xlinker",
    "-mllvm",
    "-L",
    "-l",
    "--param",
    "-iprefix",
    "-T",
    "-u",
];

/// The target that the words after the compiler name; of several, clang takes the last.
pub fn target<'a>(words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut target = None;
    let mut rest = words.into_iter();
    while let Some(word) = rest.next() {
        match word.strip_prefix("--target=") {
            Some(joined) => target = Some(joined),
            None if word == "-target" => target = rest.next().or(target),
            None => skip_value(word, &mut rest),
        }
    }
    target
}

fn skip_value<'a>(option: &str, rest: &mut impl Iterator<Item = &'a str>) {
    if option == "-o" || option == "-x" || TAKES_VALUE.contains(&option) {
        rest.next();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_target_is_the_one_and_values_of_other_options_are_none() {
        for (words, expected) in [
            ("-c a.c", None),
            ("--target=a -c a.c", Some("a")),
            ("-target a -c a.c", Some("a")),
            ("-target a --target=b -c a.c", Some("b")),
            ("--target=b -c a.c -target a", Some("a")),
            ("-Xlinker --target=a -MF -target -c -o --target=b", None),
            ("-c a.c -target", None),
            ("--target=", Some("")),
        ] {
            assert_eq!(target(words.split_whitespace()), expected, "{words}");
        }
    }
}
