#!/bin/bash
# Stands for the C++ compiler of its own name, further on in PATH. What a test run compiled once it
# copies: an object is found by the preprocessed source, the flags and the compiler. Whatever else
# is asked, flags that it doesn't know included, the compiler itself does.
set -u
here=$(dirname "$0") name=$(basename "$0")
real=$(PATH=${PATH//"$here":/} command -v "$name") || exit 127
[[ $real -ef $0 ]] && exit 127
source="" target="" flags=() look=()
for word in "$@"; do
  if [[ $target == next ]]; then target=$word; continue; fi
  case "$word" in
    -c) continue ;;
    -o) target=next; continue ;;
    *.cpp) [[ -z $source ]] && source=$word || exec "$real" "$@" ;;
    -D* | -I* | -isystem* | -stdlib++-isystem*) ;; # what they do is in the preprocessed source
    -O? | -std=c++?? | -W* | -fvisibility=hidden | -ffunction-sections | -fno-math-errno | \
      -march=* | --target=* | -stdlib=* | -L*) flags+=("$word") ;;
    *) exec "$real" "$@" ;;
  esac
  look+=("$word")
done
[[ " $* " == *" -c "* && -n $source && -n $target && ${flags[*]} != *native* ]] || exec "$real" "$@"
file=$(readlink -f "$real")
key=$( (set -o pipefail; echo "${flags[@]}" && stat -c "%n %s %Y" "$file" &&
  "$real" -E -P "${look[@]}" 2> /dev/null) | sha256sum; exit "${PIPESTATUS[0]}") ||
  exec "$real" "$@"
kept=$here/objects/${key%% *}.o
cp "$kept" "$target" 2> /dev/null && exit
"$real" "$@" || exit
cp "$target" "$kept.$$" && mv "$kept.$$" "$kept"
