"""Measures of clips, pictures and features: pure functions of arrays that know no data sets, models or pipelines."""
