"""Mistakes in single keys of a model: the line, the key, and words for the value and the remedy."""

from __future__ import annotations

import pytest

# What stands below a good model's source, the key that is reported, words of the message, words of the fix.
KEYS = [
    # unknown keys
    ("output_precison = 'fp16'", "output_precison", "unknown key", "write output_precision"),
    ("limits.max_batchsize = 1", "limits.max_batchsize", "unknown", "write max_batch_size"),
    ("xyzzy = 1", "xyzzy", "unknown key", "allow_patterns, allow_pickle, code, cog, config"),
    ("cog.xyzzy = 1", "cog.xyzzy", "unknown key", "concurrency, cuda, gpu"),
    ("dest_prefix = 'a/b'", "dest_prefix", "unknown", "at the top of the file"),
    ("gpu = true", "gpu", "unknown key", "write cog.gpu"),
    ("load_in_4bit = true", "load_in_4bit", "unknown", "config.load_in_4bit"),
    ('"a\\nb" = 1', '"a\\nb"', "unknown key", "known here"),
    # wrong types
    ("limits = 3", "limits", "expected a table, got 3", "limits.NAME = VALUE"),
    ("config = 'x'", "config", "expected a table, got 'x'", "config.NAME"),
    ("limits.max_queue = '8'", "limits.max_queue", "expected a whole number, got '8'", "without quotes"),
    ("limits.max_queue = 8.5", "limits.max_queue", "got 8.5", "decimal point"),
    ("limits.max_queue = true", "limits.max_queue", "got true", "digits"),
    ("allow_pickle = 'yes'", "allow_pickle", "expected true or false, got 'yes'", "without quotes"),
    ("cog.gpu = 1", "cog.gpu", "expected true or false, got 1", "gpu = true"),
    ("requirements = 'a==1'", "requirements", "expected a list, got 'a==1'", "requirements = ["),
    ("cog.cuda = 12.4", "cog.cuda", "expected text, got 12.4", 'cuda = "12.4"'),
    ("cog.python = 3.11", "cog.python", "got 3.11", "in quotes"),
    ("format = 'onnx'", "format", "expected 'auto', 'hf', 'gguf', 'composer' or 'accessory', got 'onnx'", "'gguf'"),
    ("allow_patterns = 3", "allow_patterns", "expected text, got 3", "in quotes"),
    ("allow_patterns = ['a', '']", "allow_patterns[1]", "'' names nothing", "leave the key out"),
    ("tokenizer = 'ftp://x/y'", "tokenizer", "'ftp://x/y' is not a source", "hf:ORG/REPO"),
    ("tokenizer = 'nowhere'", "tokenizer", "nowhere' does not exist", "relative to config.toml"),
    ("llama_type = ['llama']", "llama_type", "expected text, got a list", "in quotes"),
    ("llama_config = 'params.json'", "llama_config", "params.json' does not exist", "relative to config.toml"),
    ("llama_config = ['config.toml', 'b.json']", "llama_config[1]", "b.json' does not exist", "existing file"),
    ("source_cache = 'work/cache'", "source_cache", "is inside", "beside work/"),
    ("output.force = true", "output", "names no place", "output.uri"),
    ("output.uri = 'hf:a/b'", "output.uri", "nothing can be written to 'hf:a/b'", "s3://BUCKET/PATH"),
    ("output.uri = 'https://a.com/b'", "output.uri", "nothing can be written", "s3://BUCKET/PATH"),
    ("output.uri = 'work/m'", "output.uri", "is inside", "beside work/"),
    ("output = {uri = 'out', format = 'pt'}", "output.format", "expected 'safetensors' or 'bin', got 'pt'", "'bin'"),
    ("config.device = 'gpu'", "config.device", "'gpu' is not a device", '"cuda:1"'),
    ("export.onnx.opset = 17", "export.onnx.opset", "expected 18 or more", "from 18 on"),
    ("export.onnx.dynamc = true", "export.onnx.dynamc", "unknown key", "write dynamic"),
    ("export.onnx = 3", "export.onnx", "expected a table", "onnx.NAME"),
    ("export.onnx.output_folder = 'work/m'", "export.onnx.output_folder", "is inside", "beside work/"),
    ("export.onnx = true\nquant.bits = 4", "export.onnx", "with quant has no ONNX form", "or quant"),
    ("export.onnx = true\ntask = 'encoder'", "export.onnx", "task is encoder", "remove it"),
    ("config.autocast_dtype = 'int8'", "config.autocast_dtype", "'int8' is no type", '"bf16"'),
    ("config.device = 0", "config.device", "0 is not a device", '"cpu"'),
    ("config.max_seq_len = 0", "config.max_seq_len", "got 0", "max_seq_len = 2048"),
    ("config.max_seq_len = true", "config.max_seq_len", "got true", "max_seq_len = 2048"),
    ("output_precision = 'int4'", "output_precision", "'int4'", "'bf16'"),
    # values that JSON cannot hold
    ("config.x = [1, nan]", "config.x[1]", "nan", "finite"),
    ("limits.timeout_seconds = -inf", "limits.timeout_seconds", "-inf", "finite"),
    ("config.a.b = 1979-05-27", "config.a.b", "1979-05-27 is a date", '"1979-05-27"'),
    ("config.x = 9223372036854775808", "config.x", "9223372036854775808", "smaller"),
    # revisions
    ("huggingface.version = ''", "huggingface.version", "'' is not a rev", "branch"),
    ("huggingface.version = 'a b'", "huggingface.version", "'a b'", "branch"),
    ("huggingface.version = 'a/../b'", "huggingface.version", "'a/../b'", "branch"),
    ('huggingface.version = "a\\u0007"', "huggingface.version", "'a\\x07'", "branch"),
    ("huggingface.version = '--x'", "huggingface.version", "'--x'", "branch"),
    ("huggingface.version = '/x'", "huggingface.version", "'/x'", "branch"),
    # the container
    ("cog.cuda = '12'", "cog.cuda", "'12' is not a CUDA version", "MAJOR.MINOR"),
    ("cog.python = '3.9'", "cog.python", "'3.9'", "'3.11'"),
    ("cog.python = '3.10'\ncog.concurrency = 2", "cog.python", "cog.concurrency is 2", "concurrency = 1"),
    ("cog.python = '3.10'", "cog.python", "cog.concurrency is 32", '"3.11"'),
    ("cog.concurrency = 0", "cog.concurrency", "above 0, got 0", "above 0"),
    ("cog.system_packages = ['git', 'a; rm']", "cog.system_packages[1]", "'a; rm'", "libgomp1"),
    ("requirements = ['einops']", "requirements[0]", "'einops'", "einops==0.8.1"),
    ("requirements = ['a==1; os_name == \"nt\"']", "requirements[0]", "os_name", "=="),
    ("requirements = ['Cog==0.1']", "requirements[0]", "Cog installs Cog itself", "leave it out"),
    ("requirements = ['a @ https://x.y/a.whl']", "requirements[0]", "a.whl", "=="),
    ('requirements = ["a==1\\n--index-url x"]', "requirements[0]", "a==1\\n--index", "=="),
    # limits and arguments
    ("limits.max_batch_size = 0", "limits.max_batch_size", "above 0, got 0", "above 0"),
    ("limits.timeout_seconds = -1", "limits.timeout_seconds", "above 0, got -1", "above 0"),
    ("limits = {max_context = 5, max_tokens = 6}", "limits.max_tokens", "max_tokens (6)", "5 or less"),
]

SOURCES = [
    ("hf:a/b/c/..", "'hf:a/b/c/..'", "FILE.gguf"),
    ("hf:a/b/../c.gguf", "'hf:a/b/../c.gguf'", "FILE.gguf"),
    ("https://huggingface.co/a/b", "web page", "'hf:a/b'"),
    ("hf://a/b/../c", "'hf:a/b/../c' does not name", "hf:ORG/REPO/FOLDER"),
    ("hf://a b/c", "'a b/c'", "ORG/REPO"),
    ("hf://a/b@v1/c@v2", "'hf:a/b@v1/c@v2' names two revisions", "hf:ORG/REPO/FOLDER@REVISION"),
    ("hf://a/b@v1/../c", "'hf:a/b@v1/../c' does not name", "hf:ORG/REPO/FOLDER"),
    ("hf://a/b@/c", "'' is not a revision", "leave it out"),
    ("https://hf.co/a/b/resolve/main/m.pt", "web page", "'hf:a/b'"),
    ("https://example.com", "'https://example.com' is not the address of a file", "https://HOST/PATH"),
    ("https://me:pw@example.com/m.pt", "the address at example.com carries a password", "without one"),
    ("https://s3.example.com/m.pt?X-Amz-Signature=abc", "at s3.example.com carries a password or signature", "fetch"),
    ("s3://", "'s3://' does not name a place in a store", "s3://BUCKET/PATH"),
    ("s3:bucket/m", "'s3:bucket/m' does not name", "s3://BUCKET/PATH"),
    ("s3://bucket/a/../../b", "does not name", "s3://BUCKET/PATH"),
    ("gs://key@bucket/m", "before the name of its bucket", "gs://BUCKET/PATH"),
    ("s3://KEY:SECRET@bucket/m", "the s3 address holds", "from the environment"),
    ("oci:///m", "does not name", "oci://BUCKET@NAMESPACE/PATH"),
    ("ftp://example.com/m", "'ftp://example.com/m'", "hf:ORG/REPO, pypi:"),
    ("", "'' is not a source", "hf:ORG/REPO"),
    ("pypi:weights", "'weights'", "NAME==VERSION"),
    ("pypi:weights>=1", "'weights>=1'", "NAME==VERSION"),
    ("pypi:weights==1.*", "'weights==1.*'", "NAME==VERSION"),
    ("pypi:weights[x]==1", "extras", "PACKAGE==VERSION"),
    ("./nowhere", "/nowhere' does not exist", "relative to config.toml"),
    ("acme/model", "does not exist", "'hf:acme/model'"),
    ("hf:a/b@", "'' is not a revision", "branch"),
]

PREFIXES = [
    ("r8.im/YOURACCOUNT/", "'r8.im/YOURACCOUNT/'", "remove the line"),
    ("r8.im/my me/", "'r8.im/my me/'", "no spaces"),
    ("r8.im/\\u0007", r"'r8.im/\x07'", "r8.im/acme/"),
    ("https://r8.im/a/", "'https://r8.im/a/'", 'no "https://"'),
    ("", "''", "r8.im/acme/"),
    ("r8.im/Acme/", "'r8.im/Acme/'", "small letters"),
    ("r8.im//a", "'r8.im//a'", "r8.im/acme/"),
]


@pytest.mark.parametrize(("text", "key", "message", "fix"), KEYS)
def test_a_key_of_a_model(assert_refused, text, key, message, fix):
    assert_refused(f"[models.m]\nsource = 'hf:a/b'\n{text}\n", 3, f"models.m.{key}", message, fix)


@pytest.mark.parametrize(("value", "message", "fix"), SOURCES)
def test_a_source(assert_refused, value, message, fix):
    assert_refused(f"[models.m]\nformat = 'auto'\nsource = '{value}'\n", 3, "models.m.source", message, fix)


@pytest.mark.parametrize(("value", "message", "fix"), PREFIXES)
def test_the_image_prefix(assert_refused, value, message, fix):
    assert_refused(f'dest_prefix = "{value}"\n[models.m]\nsource = "hf:a/b"\n', 1, "dest_prefix", message, fix)


def test_a_secret_in_an_address_is_not_repeated(problems_of):
    (problem,) = problems_of("[models.m]\nsource = 's3://AKIA:hush@bucket/m'\n")
    assert "hush" not in str(problem)
