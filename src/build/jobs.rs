//! What a person's `-j` means here.

/// A make command line without its `-j`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adapted {
    /// The other arguments.
    pub args: Vec<String>,
    /// What `-j` asked for.
    pub jobs: Jobs,
}

/// How many jobs were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jobs {
    /// No `-j`.
    Unsaid,
    /// `-j` alone.
    Unlimited,
    /// `-jN`: a ceiling; 1 means serial.
    AtMost(u32),
}

/// Takes `-j`, `-jN`, `-j N`, `--jobs`, `--jobs=N` out of the arguments; the last one counts, as in make.
#[must_use]
pub fn adapt(args: &[String]) -> Adapted {
    let mut adapted = Adapted {
        args: Vec::new(),
        jobs: Jobs::Unsaid,
    };
    let mut rest = args.iter().peekable();
    while let Some(arg) = rest.next() {
        if arg == "--" {
            adapted.args.push(arg.clone());
            adapted.args.extend(rest.cloned());
            break;
        }
        let value = arg
            .strip_prefix("--jobs=")
            .or_else(|| arg.strip_prefix("-j"));
        match value {
            Some("") => adapted.jobs = next_number(&mut rest),
            Some(number) if number.parse::<u32>().is_ok() => adapted.jobs = at_most(number),
            _ if arg == "--jobs" => adapted.jobs = next_number(&mut rest),
            _ => adapted.args.push(arg.clone()),
        }
    }
    adapted
}

fn next_number(rest: &mut std::iter::Peekable<std::slice::Iter<'_, String>>) -> Jobs {
    rest.next_if(|next| next.parse::<u32>().is_ok())
        .map_or(Jobs::Unlimited, |next| at_most(next))
}

fn at_most(number: &str) -> Jobs {
    number.parse().map_or(Jobs::Unlimited, Jobs::AtMost)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_it_is_understood() {
        for (line, left, jobs) in [
            ("all", "all", Jobs::Unsaid),
            ("-j all", "all", Jobs::Unlimited),
            ("-j8 -k", "-k", Jobs::AtMost(8)),
            ("-j 4 all", "all", Jobs::AtMost(4)),
            ("--jobs all", "all", Jobs::Unlimited),
            ("--jobs=1", "", Jobs::AtMost(1)),
            ("-- -j", "-- -j", Jobs::Unsaid),
        ] {
            let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            let adapted = adapt(&args);
            assert_eq!(
                (adapted.args.join(" ").as_str(), adapted.jobs),
                (left, jobs),
                "{line}"
            );
        }
    }
}
