// Reads JSON documents from stdin, a line each; prints each as farm's own reader and writer have it,
// or `! code`.
#include <iostream>
#include <string>

#include "common/failure.h"
#include "common/json.h"

int main() {
  std::string line;
  while (std::getline(std::cin, line)) {
    try {
      std::cout << farm::json::parse(line).dump() << '\n';
    } catch (const farm::Failure& failure) {
      std::cout << "! " << failure.code() << '\n';
    }
  }
}
