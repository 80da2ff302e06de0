#include "tally.hpp"

#include <algorithm>
#include <iterator>

std::vector<std::string> palindromes_in(const std::vector<std::string> &words) {
    std::vector<std::string> found;
    std::copy_if(words.begin(), words.end(), std::back_inserter(found), [](const std::string &word) {
        return word.size() > 2 && std::equal(word.begin(), word.end(), word.rbegin());
    });
    return found;
}
