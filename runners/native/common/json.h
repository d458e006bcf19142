// A strict JSON value, parser and writer: what farm's native programs speak. It knows nothing of
// requests or devices. Parsing is bounded in depth and size and never trusts its input.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace farm::json {

class Value {
 public:
  enum class Kind { Null, Bool, Int, Double, String, Array, Object };
  using Member = std::pair<std::string, Value>;

  Value() = default;
  Value(std::nullptr_t) {}
  Value(bool value) : kind_(Kind::Bool), bool_(value) {}
  Value(int value) : Value(static_cast<int64_t>(value)) {}
  Value(long value) : Value(static_cast<long long>(value)) {}
  Value(long long value) : kind_(Kind::Int), int_(value) {}
  Value(unsigned value) : Value(static_cast<int64_t>(value)) {}
  Value(unsigned long value) : Value(static_cast<long long>(value)) {}
  Value(double value) : kind_(Kind::Double), double_(value) {}
  Value(const char* value) : kind_(Kind::String), string_(value) {}
  Value(std::string value) : kind_(Kind::String), string_(std::move(value)) {}

  static Value array() { return of(Kind::Array); }
  static Value object() { return of(Kind::Object); }
  template <class Range>
  static Value array_of(const Range& range) {
    Value list = array();
    for (const auto& item : range) list.push(Value(item));
    return list;
  }

  Kind kind() const { return kind_; }
  bool is(Kind kind) const { return kind_ == kind; }
  bool as_bool() const { return bool_; }
  int64_t as_int() const { return int_; }
  double as_double() const { return kind_ == Kind::Int ? static_cast<double>(int_) : double_; }
  const std::string& as_string() const { return string_; }
  const std::vector<Value>& items() const { return items_; }
  const std::vector<Member>& members() const { return members_; }

  // The member of that name, or null when there is none.
  const Value* find(const std::string& name) const;
  Value& set(std::string name, Value value);
  Value& push(Value value);

  // One line, no spaces. Bytes that are no UTF-8 become U+FFFD.
  std::string dump() const;

 private:
  static Value of(Kind kind) {
    Value value;
    value.kind_ = kind;
    return value;
  }
  void dump_to(std::string& out) const;

  Kind kind_ = Kind::Null;
  bool bool_ = false;
  int64_t int_ = 0;
  double double_ = 0;
  std::string string_;
  std::vector<Value> items_;
  std::vector<Member> members_;
};

// Throws farm::Failure("bad_json", ...) naming the byte offset. Duplicate names, trailing text,
// numbers out of range and nesting deeper than 32 are refused.
Value parse(const std::string& text);

}  // namespace farm::json
