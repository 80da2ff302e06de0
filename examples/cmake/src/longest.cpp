#include "tally.hpp"

#include <algorithm>

std::string longest_of(const std::vector<std::string> &words) {
    const auto shorter = [](const std::string &a, const std::string &b) { return a.size() < b.size(); };
    const auto longest = std::max_element(words.begin(), words.end(), shorter);
    return longest == words.end() ? std::string() : *longest;
}
