"""Operations: changes that operators make to jobs."""
