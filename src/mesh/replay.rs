//! Telling a replayed ping from news.

/// Which ping numbers were heard (as RFC 6479 does for packets): a replayed ping is old news.
#[derive(Debug, Default)]
pub(super) struct ReplayWindow {
    newest: u64,
    seen: u128,
}

impl ReplayWindow {
    /// Returns whether this number comes for the first time; one too old to tell is no news either.
    pub(super) fn is_news(&mut self, number: u64) -> bool {
        if number > self.newest {
            let ahead = u32::try_from(number - self.newest).unwrap_or(u32::MAX);
            self.seen = self.seen.checked_shl(ahead).unwrap_or(0) | 1;
            self.newest = number;
            return true;
        }
        let behind = u32::try_from(self.newest - number).unwrap_or(u32::MAX);
        let bit = 1_u128.checked_shl(behind).unwrap_or(0);
        let news = bit != 0 && self.seen & bit == 0;
        self.seen |= bit;
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ping_number_is_news_once() {
        let mut window = ReplayWindow::default();
        for (number, news) in [
            (1, true),
            (1, false),
            (3, true),
            (2, true),
            (2, false),
            (200, true),
            (72, false),
            (73, true),
            (u64::MAX, true),
            (200, false),
        ] {
            assert_eq!(window.is_news(number), news, "ping {number}");
        }
    }
}
