// SPDX-License-Identifier: Apache-2.0
/// Errors as values: an Error is one sentence, a Result<T> is a T or an Error.
///
/// Functions that return a Result or a Status throw nothing, also when memory runs out: then the
/// error is of kind memory, and the objects taking part are as before the call. Functions that
/// return a text or a list by value (str(), to_text(), to_json(), notes(), list_cells()) cannot
/// report: they let std::bad_alloc through, as the containers of the standard library do, and
/// change nothing. So does making the arguments that a function takes by value.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#pragma GCC visibility push(default)
namespace deepcpu {

/// What a program may want to tell apart without reading the sentence.
enum class ErrorKind : std::uint8_t {
  other,      ///< the sentence says what
  memory,     ///< there was not enough; the same call may succeed later
  code_size,  ///< a kernel would have more code than is allowed
};

/// One sentence that names the field, the value and the rule it broke:
/// "hidden=0: must be between 1 and 1048576".
class Error {
 public:
  explicit Error(std::string message, ErrorKind kind = ErrorKind::other)
      : message_(std::move(message)), kind_(kind) {}
  /// "memory: there is not enough to <what>", or a shorter text if there is none for the sentence.
  static Error memory(std::string_view what) noexcept {
#if defined(__cpp_exceptions)
    try {
#endif
      std::string text = "memory: there is not enough to ";
      return Error(text.append(what), ErrorKind::memory);
#if defined(__cpp_exceptions)
    } catch (const std::exception&) {
      return Error("memory: none", ErrorKind::memory);  // short enough to need none
    }
#endif
  }
  const std::string& message() const noexcept { return message_; }
  ErrorKind kind() const noexcept { return kind_; }

 private:
  std::string message_;
  ErrorKind kind_;
};

/// Thrown by Result::value() when there is none (only where exceptions are enabled).
class BadResult : public std::runtime_error {
 public:
  explicit BadResult(const Error& error) : std::runtime_error(error.message()) {}
};

namespace detail {
[[noreturn]] inline void raise(const Error& error) {
#if defined(__cpp_exceptions)
  throw BadResult(error);
#else
  std::fprintf(stderr, "deepcpu: %s\n", error.message().c_str());
  std::abort();
#endif
}
}  // namespace detail

/// A T, or the Error that says why there is none.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}

  bool ok() const noexcept { return state_.index() == 0; }
  explicit operator bool() const noexcept { return ok(); }

  /// The value. Without one: throws BadResult, or prints the sentence and aborts when the
  /// including program is built with -fno-exceptions.
  T& value() & {
    return ok() ? std::get<0>(state_) : (detail::raise(error()), std::get<0>(state_));
  }
  const T& value() const& {
    return ok() ? std::get<0>(state_) : (detail::raise(error()), std::get<0>(state_));
  }
  T&& value() && {
    return ok() ? std::get<0>(std::move(state_))
                : (detail::raise(error()), std::get<0>(std::move(state_)));
  }

  /// Unchecked access; ok() must hold.
  T& operator*() & noexcept { return *std::get_if<0>(&state_); }
  const T& operator*() const& noexcept { return *std::get_if<0>(&state_); }
  T* operator->() noexcept { return std::get_if<0>(&state_); }
  const T* operator->() const noexcept { return std::get_if<0>(&state_); }

  /// The error. Unchecked; ok() must not hold.
  const Error& error() const noexcept { return *std::get_if<1>(&state_); }

 private:
  std::variant<T, Error> state_;
};

/// Success, or an Error.
template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error) : error_(std::move(error)) {}

  bool ok() const noexcept { return !error_.has_value(); }
  explicit operator bool() const noexcept { return ok(); }
  void value() const {
    if (error_) detail::raise(*error_);
  }
  /// The error. Unchecked; ok() must not hold.
  const Error& error() const noexcept { return *error_; }

 private:
  std::optional<Error> error_;
};

using Status = Result<void>;

}  // namespace deepcpu
#pragma GCC visibility pop
