"""What a user names on the command line -> what torch needs: models, data, transforms."""
