#include "tally.hpp"

#include <algorithm>
#include <iterator>
#include <regex>

std::vector<std::string> words_of(const std::string &text) {
    static const std::regex word("[A-Za-z]+");
    const std::sregex_iterator begin(text.begin(), text.end(), word), end;
    std::vector<std::string> words;
    std::transform(begin, end, std::back_inserter(words), [](const std::smatch &match) { return match.str(); });
    return words;
}
