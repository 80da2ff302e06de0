#include "tally.hpp"

#include <fstream>
#include <iostream>
#include <sstream>

int main(int count, char **arguments) {
    if (count != 2) {
        std::cerr << "usage: tally FILE\n";
        return 2;
    }
    std::ifstream file(arguments[1]);
    std::ostringstream text;
    text << file.rdbuf();
    const auto words = words_of(text.str());
    std::cout << lines_of(text.str()).size() << " lines, " << words.size() << " words, " << sentences_of(text.str()).size()
              << " sentences, " << palindromes_in(words).size() << " palindromes, longest: " << longest_of(words) << '\n';
    for (const auto &[length, found] : histogram_of(words)) {
        std::cout << length << ": " << found << '\n';
    }
    return words.empty() ? 1 : 0;
}
