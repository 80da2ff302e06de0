//! Events rendered for a person: summary, `report.json`, progress.
