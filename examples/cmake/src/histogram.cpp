#include "tally.hpp"

std::map<std::size_t, std::size_t> histogram_of(const std::vector<std::string> &words) {
    std::map<std::size_t, std::size_t> histogram;
    for (const auto &word : words) {
        ++histogram[word.size()];
    }
    return histogram;
}
