// Levels of likelihood, and what follows from a log-probability.

/** From the likeliest down: the least probability of each level, and how the legend calls it. */
export const LEVELS = [
  { least: 0.9, name: "≥ 90 %" },
  { least: 0.5, name: "≥ 50 %" },
  { least: 0.2, name: "≥ 20 %" },
  { least: 0.05, name: "≥ 5 %" },
  { least: 0.01, name: "≥ 1 %" },
  { least: 0, name: "< 1 %" },
];

export const probability = (logprob) => Math.exp(logprob);
export const levelOf = (logprob) => LEVELS.findIndex(({ least }) => Math.exp(logprob) >= least);

/** Surprise in bits: −log2 p. */
export const bits = (logprob) => Math.max(0, -logprob / Math.LN2);

/** What a text's tokens amount to; null where none was predicted. */
export function summary(tokens) {
  const predicted = tokens.filter(({ logprob }) => logprob !== null);
  if (predicted.length === 0) return null;
  const total = predicted.reduce((sum, { logprob }) => sum + bits(logprob), 0);
  const mean = total / predicted.length;
  return { count: tokens.length, total, mean, perplexity: 2 ** mean };
}
