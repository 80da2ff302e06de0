#include "tally.hpp"

#include <algorithm>
#include <iterator>
#include <regex>

std::vector<std::string> sentences_of(const std::string &text) {
    static const std::regex end("[.!?;](\\s+|$)");
    std::vector<std::string> sentences;
    std::copy(std::sregex_token_iterator(text.begin(), text.end(), end, -1), std::sregex_token_iterator(),
              std::back_inserter(sentences));
    return sentences;
}
