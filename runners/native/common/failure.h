// The one exception of farm's native programs: a code for machines and a sentence for people.
#pragma once

#include <exception>
#include <string>
#include <utility>

#include "json.h"

namespace farm {

class Failure : public std::exception {
 public:
  Failure(std::string code, std::string message)
      : code_(std::move(code)), message_(std::move(message)), detail_(json::Value::object()) {}

  // Adds a fact beside code and message, for example the owner that holds a lease.
  Failure& with(std::string name, json::Value value) & {
    detail_.set(std::move(name), std::move(value));
    return *this;
  }
  Failure&& with(std::string name, json::Value value) && {
    detail_.set(std::move(name), std::move(value));
    return std::move(*this);
  }

  const std::string& code() const { return code_; }
  const std::string& message() const { return message_; }
  const json::Value& detail() const { return detail_; }
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  std::string code_;
  std::string message_;
  json::Value detail_;
};

}  // namespace farm
