#pragma once

#include <map>
#include <string>
#include <vector>

// A small program with enough of the standard library in it that compiling is worth sending away.

std::vector<std::string> lines_of(const std::string &text);
std::vector<std::string> words_of(const std::string &text);
std::vector<std::string> sentences_of(const std::string &text);
std::vector<std::string> palindromes_in(const std::vector<std::string> &words);
std::map<std::size_t, std::size_t> histogram_of(const std::vector<std::string> &words);
std::string longest_of(const std::vector<std::string> &words);
