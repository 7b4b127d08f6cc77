// SPDX-License-Identifier: Apache-2.0
/// Errors as values: an Error is one sentence, a Result<T> is a T or an Error.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>

#pragma GCC visibility push(default)
namespace deepcpu {

/// One sentence that names the field, the value and the rule it broke:
/// "hidden=0: must be between 1 and 1048576".
class Error {
 public:
  explicit Error(std::string message) : message_(std::move(message)) {}
  const std::string& message() const noexcept { return message_; }

 private:
  std::string message_;
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

  /// The error; ok() must not hold.
  const Error& error() const { return std::get<1>(state_); }

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
  const Error& error() const { return *error_; }

 private:
  std::optional<Error> error_;
};

using Status = Result<void>;

}  // namespace deepcpu
#pragma GCC visibility pop
