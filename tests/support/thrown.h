// What a call throws, of whatever type, as text.
#pragma once

#include <functional>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

// "" when it throws nothing.
inline std::string thrown_by(const std::function<void()>& call) {
  try {
    call();
  } catch (const std::bad_alloc&) {
    return "bad_alloc";
  } catch (const std::exception& error) {
    return error.what();
  } catch (int number) {
    return std::to_string(number);
  }
  return "";
}

// Exceptions of all kinds, with what thrown_by says of them.
inline const std::vector<std::pair<std::string, std::function<void()>>> kThrows = {
    {"bad_alloc", [] { throw std::bad_alloc(); }},
    {"out of range", [] { throw std::out_of_range("out of range"); }},
    {"7", [] { throw 7; }}};
