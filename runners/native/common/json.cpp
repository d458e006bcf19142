#include "json.h"

#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <unordered_set>

#include "failure.h"
#include "number.h"

namespace farm::json {
namespace {

constexpr int kMaxDepth = 32;

// Length of the valid UTF-8 sequence at `at`, or 0. Overlong forms and surrogates are invalid.
size_t utf8_length(const std::string& text, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(at);
  if (lead < 0x80) return 1;
  const size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || at + length > text.size()) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(at + i) & 0xC0) != 0x80) return 0;
  }
  const unsigned char next = byte(at + 1);
  if (lead == 0xE0 && next < 0xA0) return 0;
  if (lead == 0xED && next > 0x9F) return 0;
  if (lead == 0xF0 && next < 0x90) return 0;
  if (lead == 0xF4 && next > 0x8F) return 0;
  return length;
}

void dump_string(const std::string& text, std::string& out) {
  out += '"';
  for (size_t i = 0; i < text.size();) {
    const unsigned char c = static_cast<unsigned char>(text[i]);
    const size_t length = utf8_length(text, i);
    if (length == 0) {
      out += "\\ufffd";
      ++i;
      continue;
    }
    if (c == '"' || c == '\\') {
      out += '\\';
      out += text[i];
    } else if (c == '\n') {
      out += "\\n";
    } else if (c < 0x20 || c == 0x7F) {
      char buffer[8];
      std::snprintf(buffer, sizeof buffer, "\\u%04x", c);
      out += buffer;
    } else {
      out.append(text, i, length);
    }
    i += length;
  }
  out += '"';
}

class Parser {
 public:
  explicit Parser(const std::string& text) : text_(text) {}

  Value document() {
    Value value = element(0);
    space();
    if (at_ != text_.size()) fail("text after the end of the document");
    return value;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw Failure("bad_json", what + " at byte " + std::to_string(at_));
  }

  bool more() const { return at_ < text_.size(); }

  void space() {
    while (more() && std::strchr(" \t\r\n", text_[at_]) && text_[at_] != '\0') ++at_;
  }

  bool take(char c) {
    if (!more() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  bool word(const char* literal) {
    const size_t length = std::strlen(literal);
    if (text_.compare(at_, length, literal) != 0) return false;
    at_ += length;
    return true;
  }

  Value element(int depth) {
    if (depth > kMaxDepth) fail("nesting deeper than 32");
    space();
    if (!more()) fail("the document ends early");
    switch (text_[at_]) {
      case '{': return object(depth);
      case '[': return list(depth);
      case '"': return Value(string());
      case 't': if (word("true")) return Value(true); break;
      case 'f': if (word("false")) return Value(false); break;
      case 'n': if (word("null")) return Value(); break;
      default: return number();
    }
    fail("an unknown word");
  }

  Value object(int depth) {
    Value result = Value::object();
    std::unordered_set<std::string> seen;
    ++at_;
    space();
    if (take('}')) return result;
    do {
      space();
      if (!more() || text_[at_] != '"') fail("a member needs a name in quotes");
      std::string name = string();
      if (!seen.insert(name).second) fail("the name " + name + " stands twice");
      space();
      if (!take(':')) fail("':' expected");
      result.set(std::move(name), element(depth + 1));
      space();
    } while (take(','));
    if (!take('}')) fail("',' or '}' expected");
    return result;
  }

  Value list(int depth) {
    Value result = Value::array();
    ++at_;
    space();
    if (take(']')) return result;
    do {
      result.push(element(depth + 1));
      space();
    } while (take(','));
    if (!take(']')) fail("',' or ']' expected");
    return result;
  }

  unsigned hex4() {
    unsigned code = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      const char c = more() ? text_[at_] : '\0';
      code <<= 4;
      if (c >= '0' && c <= '9') code += static_cast<unsigned>(c - '0');
      else if (c >= 'a' && c <= 'f') code += static_cast<unsigned>(c - 'a' + 10);
      else if (c >= 'A' && c <= 'F') code += static_cast<unsigned>(c - 'A' + 10);
      else fail("four hexadecimal digits expected");
    }
    return code;
  }

  void escape(std::string& out) {
    if (!more()) fail("an escape ends early");
    const char c = text_[at_++];
    switch (c) {
      case '"': case '\\': case '/': out += c; return;
      case 'b': out += '\b'; return;
      case 'f': out += '\f'; return;
      case 'n': out += '\n'; return;
      case 'r': out += '\r'; return;
      case 't': out += '\t'; return;
      case 'u': break;
      default: fail("an unknown escape");
    }
    unsigned code = hex4();
    if (code >= 0xD800 && code <= 0xDBFF) {
      if (!word("\\u")) fail("half a surrogate pair");
      const unsigned low = hex4();
      if (low < 0xDC00 || low > 0xDFFF) fail("half a surrogate pair");
      code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    } else if (code >= 0xDC00 && code <= 0xDFFF) {
      fail("half a surrogate pair");
    }
    append_utf8(code, out);
  }

  static void append_utf8(unsigned code, std::string& out) {
    const auto put = [&](unsigned byte) { out += static_cast<char>(byte); };
    if (code < 0x80) {
      put(code);
    } else if (code < 0x800) {
      put(0xC0 | code >> 6);
      put(0x80 | (code & 0x3F));
    } else if (code < 0x10000) {
      put(0xE0 | code >> 12);
      put(0x80 | (code >> 6 & 0x3F));
      put(0x80 | (code & 0x3F));
    } else {
      put(0xF0 | code >> 18);
      put(0x80 | (code >> 12 & 0x3F));
      put(0x80 | (code >> 6 & 0x3F));
      put(0x80 | (code & 0x3F));
    }
  }

  std::string string() {
    std::string out;
    ++at_;
    while (true) {
      if (!more()) fail("a string ends early");
      const unsigned char c = static_cast<unsigned char>(text_[at_]);
      if (c == '"') {
        ++at_;
        return out;
      }
      if (c < 0x20) fail("a control character in a string");
      if (c == '\\') {
        ++at_;
        escape(out);
        continue;
      }
      const size_t length = utf8_length(text_, at_);
      if (length == 0) fail("bytes that are no UTF-8");
      out.append(text_, at_, length);
      at_ += length;
    }
  }

  void digits() {
    const size_t from = at_;
    while (more() && text_[at_] >= '0' && text_[at_] <= '9') ++at_;
    if (at_ == from) fail("a digit expected");
  }

  Value number() {
    const size_t from = at_;
    bool whole = true;
    take('-');
    if (!take('0')) digits();
    if (take('.')) {
      whole = false;
      digits();
    }
    if (take('e') || take('E')) {
      whole = false;
      if (!take('+')) take('-');
      digits();
    }
    const char* first = text_.data() + from;
    const char* last = text_.data() + at_;
    if (whole) {
      int64_t value = 0;
      if (std::from_chars(first, last, value).ec != std::errc()) fail("a number out of range");
      return Value(static_cast<long long>(value));
    }
    double value = 0;
    if (!read_double(std::string(first, last), value)) fail("a number out of range");
    return Value(value);
  }

  const std::string& text_;
  size_t at_ = 0;
};

}  // namespace

const Value* Value::find(const std::string& name) const {
  for (const Member& member : members_) {
    if (member.first == name) return &member.second;
  }
  return nullptr;
}

Value& Value::set(std::string name, Value value) {
  members_.emplace_back(std::move(name), std::move(value));
  return *this;
}

Value& Value::push(Value value) {
  items_.push_back(std::move(value));
  return *this;
}

std::string Value::dump() const {
  std::string out;
  dump_to(out);
  return out;
}

void Value::dump_to(std::string& out) const {
  switch (kind_) {
    case Kind::Null: out += "null"; return;
    case Kind::Bool: out += bool_ ? "true" : "false"; return;
    case Kind::Int: out += std::to_string(int_); return;
    case Kind::String: dump_string(string_, out); return;
    case Kind::Double: {
      if (!std::isfinite(double_)) {
        out += "null";
        return;
      }
      char buffer[32];
      const auto end = std::to_chars(buffer, buffer + sizeof buffer, double_).ptr;
      out.append(buffer, end);
      return;
    }
    case Kind::Array: {
      out += '[';
      for (size_t i = 0; i < items_.size(); ++i) {
        if (i) out += ',';
        items_[i].dump_to(out);
      }
      out += ']';
      return;
    }
    case Kind::Object: {
      out += '{';
      for (size_t i = 0; i < members_.size(); ++i) {
        if (i) out += ',';
        dump_string(members_[i].first, out);
        out += ':';
        members_[i].second.dump_to(out);
      }
      out += '}';
      return;
    }
  }
}

Value parse(const std::string& text) { return Parser(text).document(); }

}  // namespace farm::json
