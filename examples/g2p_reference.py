# SPDX-License-Identifier: Apache-2.0
"""Spells words with g2p_en's own numpy code, for comparison with examples/g2p.cpp.

    g2p_reference.py PACKAGE_FOLDER WORDS_FILE [--time]

prints `word<TAB>phonemes` for each word. With --time it also prints on stderr the microseconds per
word: the median over passes over all words, after one pass to warm up.

The package's module imports NLTK (with corpora that it downloads) and inflect. Its prediction needs
neither, so empty stand-ins take their place; the class, its weights and `predict` are the
package's own.
"""
import argparse
import os
import re
import statistics
import sys
import time
import types
import warnings

# One thread, as the program it is compared with. Read by numpy's BLAS when it is loaded.
for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

PASSES = 5


def stand_in(name, **members):
    module = types.ModuleType(name)
    module.__dict__.update(members)
    sys.modules[name] = module
    return module


def install_stand_ins():
    """Modules with just what g2p_en touches on import and in its constructor."""
    tokenizer = type("TweetTokenizer", (), {"tokenize": staticmethod(str.split)})
    cmudict = types.SimpleNamespace(dict=dict)
    nltk = stand_in(
        "nltk",
        pos_tag=lambda words: [(word, "") for word in words],
        data=types.SimpleNamespace(find=lambda resource: resource),
    )
    nltk.corpus = stand_in("nltk.corpus", cmudict=cmudict)
    nltk.tokenize = stand_in("nltk.tokenize", TweetTokenizer=tokenizer)
    stand_in("inflect", engine=lambda: None)


def load_package(folder):
    install_stand_ins()
    sys.path.insert(0, folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an invalid escape in a string of the package
        from g2p_en.g2p import G2p
    return G2p()


def read_words(path):
    """Words between white space, in lower case, letters and apostrophes only, as g2p.cpp."""
    with open(path, encoding="utf-8") as file:
        words = [re.sub("[^a-z']", "", word.lower()) for word in file.read().split()]
    return [word for word in words if word]


def microseconds_per_word(g2p, words):
    times = []
    for _ in range(PASSES + 1):
        start = time.perf_counter()
        for word in words:
            g2p.predict(word)
        times.append((time.perf_counter() - start) * 1e6 / len(words))
    return statistics.median(times[1:])


def main():
    parser = argparse.ArgumentParser(description="Spells words with g2p_en's own numpy code.")
    parser.add_argument("package", help="folder that holds g2p_en/")
    parser.add_argument("words", help="file with words")
    parser.add_argument("--time", action="store_true", help="microseconds per word on stderr")
    arguments = parser.parse_args()
    g2p = load_package(arguments.package)
    words = read_words(arguments.words)
    if not words:
        sys.exit(f"{arguments.words}: holds no word")
    for word in words:
        print(word, " ".join(g2p.predict(word)), sep="\t")
    if arguments.time:
        print(f"{microseconds_per_word(g2p, words):.1f}", file=sys.stderr)


if __name__ == "__main__":
    main()
