"""Research apparatus: tuning methods, comparisons, proofs. The product never imports it."""
